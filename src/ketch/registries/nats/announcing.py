"""The dialect of ketch: announcements on subjects of its own, and questions of NATS's services protocol.

ketch-instances.service.<name>.<id>     the record (see `record`), or nothing when the instance goes
ketch-instances.contract.<name>.<id>    likewise, for each contract; names and ids as in `keys`
$SRV.INFO.<name>                        the question (see `micro`)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ...registry import Instance
from .. import record
from .dialect import News
from .keys import decode, keys, pattern
from .micro import INFO, PREFIX, plain, read

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from .commands import Question

_TTL: Final = b"Ketch-TTL: "


class Announcing:
    """See above.

    Args:
        prefix: what our subjects begin with.
        ttl: seconds until a registered instance is to be heard of again.
    """

    def __init__(self, prefix: str, ttl: float) -> None:
        self._prefix = prefix
        self._headers = b"%b%d\r\n" % (_TTL, round(ttl))

    def subjects(self, name: str | None) -> list[str]:
        """Return the one pattern by which those who answer to `name` announce themselves."""
        return [f"{self._prefix}.{pattern(name)}"]

    def questions(self, name: str | None) -> list[Question]:
        """Ask for INFO, by name where there is one."""
        return [(f"{PREFIX}.{INFO}" if name is None else f"{PREFIX}.{INFO}.{plain(name)}", b"", b"")]

    def announcements(self, instances: Collection[Instance]) -> list[Question]:
        """Return an instance's record under each of its keys."""
        return [
            (f"{self._prefix}.{key}", self._headers, body)
            for instance in instances
            for body in (record.encode(instance),)
            for key in keys(instance)
        ]

    def farewells(self, instances: Collection[Instance]) -> list[Question]:
        """Return nothing under each key."""
        return [(f"{self._prefix}.{key}", b"", b"") for instance in instances for key in keys(instance)]

    def moved(self, before: Instance, after: Instance) -> list[Question]:
        """Return nothing under each key that it has left."""
        now = set(keys(after))
        return [message for message in self.farewells((before,)) if message[0][len(self._prefix) + 1 :] not in now]

    def read(self, subject: str, headers: bytes, body: bytes) -> Sequence[News]:
        """Return what an announcement, or an answer to INFO, says."""
        if not subject.startswith(f"{self._prefix}."):
            instance, lives = read(body)
            return (News(instance, lives=lives),)
        if not body:
            name, id_ = subject.split(".")[-2:]
            return (News(Instance(decode(name), decode(id_), ""), gone=True),)
        ttl = headers.partition(b"\n" + _TTL)[2].partition(b"\r")[0]
        return (News(record.decode(body), lives=float(ttl) if ttl.isdigit() else 0.0),)
