"""The dialect of go-micro's NATS registry (registry/nats of go-micro v5).

micro.nats.query    {"Service": {"name": …} or null, "Action": "get" or "list"}; each owner answers with a record
micro.nats.watch    {"Service": record, "Action": "create" or "delete"}; create is said again now and then
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from ...errors import RegistryError
from .. import gomicro
from .dialect import News

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from ...nats.wire import Received
    from ...registry import Instance
    from .commands import Question
    from .link import Link

QUERY: Final = "micro.nats.query"
WATCH: Final = "micro.nats.watch"
_CREATE, _DELETE, _GET, _LIST = "create", "delete", "get", "list"


class _Result(msgspec.Struct, rename="pascal"):
    service: gomicro.Service | None = None
    action: str = ""


_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(_Result)


class Querying:
    """See above."""

    def subjects(self, name: str | None) -> list[str]:  # noqa: ARG002 - there is one for all
        """Return the one subject on which everybody announces itself."""
        return [WATCH]

    def questions(self, name: str | None) -> list[Question]:
        """Ask for a service by its name; our owners answer to their contracts' names as well."""
        return [(QUERY, b"", _encode(_Result(None, _LIST) if name is None else _Result(gomicro.Service(name), _GET)))]

    def announcements(self, instances: Collection[Instance]) -> list[Question]:
        """Say that instances are there."""
        return [(WATCH, b"", _result(instance, _CREATE)) for instance in instances]

    def farewells(self, instances: Collection[Instance]) -> list[Question]:
        """Say that instances go."""
        return [(WATCH, b"", _result(instance, _DELETE)) for instance in instances]

    def moved(self, before: Instance, after: Instance) -> list[Question]:
        """Say that it goes, where it is now of another service."""
        return self.farewells((before,)) if before.service != after.service else []

    def read(self, subject: str, headers: bytes, body: bytes) -> Sequence[News]:  # noqa: ARG002 - it has no headers
        """Return what an announcement says, or an answer to a query."""
        if subject != WATCH:
            return [News(instance) for instance in gomicro.instances(gomicro.decode(body))]
        result = _read(body)
        gone = result.action == _DELETE
        return [News(one, gone=gone) for one in gomicro.instances(result.service or gomicro.Service())]


class Owner:
    """Answers queries for our instances.

    Args:
        link: where to hear and answer.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._owned: dict[str, Instance] = {}

    async def check(self) -> str:
        """Hear queries; return why the server doesn't let us, "" when it does.

        Raises:
            RegistryError: the server doesn't answer.
        """
        await self._link.answer(QUERY, self._take)
        await self._link.settle()
        return self._link.refusal(QUERY)

    async def serve(self, instance: Instance) -> None:
        """Answer for an instance from now on."""
        self._owned[instance.id] = instance

    async def retire(self, instance: Instance) -> None:
        """Answer for an instance no more."""
        self._owned.pop(instance.id, None)

    async def _take(self, batch: list[Received]) -> None:
        answers = []
        for _, _, body, reply in batch:
            try:
                query = _read(body)
            except RegistryError:
                continue  # go-micro passes over it as well
            if reply and query.action in (_GET, _LIST):
                name = None if query.action == _LIST or query.service is None else query.service.name
                answers += [(reply.decode(), b"", made, "") for made in self._answers(name)]
        if answers:
            await self._link.offer(answers)

    def _answers(self, name: str | None) -> list[bytes]:
        asked = [one for one in self._owned.values() if name is None or one.answers_to(name)]
        return [gomicro.encode(gomicro.service(instance, "nats")) for instance in asked]


def _result(instance: Instance, action: str) -> bytes:
    made = gomicro.service(instance, "nats")
    gomicro.encode(made)  # it checks it
    return _encode(_Result(made, action))


def _read(body: bytes) -> _Result:
    if len(body) > gomicro.MAX_READ:
        raise RegistryError(f"a message of {len(body)} bytes, more than {gomicro.MAX_READ}")
    try:
        return _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RegistryError(f"no message of go-micro's registry: {error}") from error
