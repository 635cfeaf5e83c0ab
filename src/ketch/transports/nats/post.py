"""Post: the connection to NATS with an inbox, where what comes in is handed out by the last word of its subject."""

from __future__ import annotations

import itertools
import logging
import os
from typing import TYPE_CHECKING, Final, TypeAlias

from ...errors import TransportError
from ...nats.link import Link, publication

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...nats.config import Config
    from ...nats.wire import RawHeaders, Received

    #: Takes a message: its headers, its body, where to answer to.
    Taker: TypeAlias = Callable[[RawHeaders | None, bytes, bytes], None]

log = logging.getLogger("ketch.nats")

#: Bytes that the server must take in a message: headers have their share of it.
_LEAST: Final = 65_536


class Post:
    """One program's connection, shared by all of a transport's listeners and channels.

    Attributes:
        link: the connection.
        id: of this inbox; letters and digits.
    """

    def __init__(self, config: Config) -> None:
        self.link = Link(config)
        self.id = ""
        self._takers: dict[str, Taker] = {}
        self._numbers = itertools.count()

    async def open(self) -> None:
        """Connect, and open the inbox.

        Raises:
            TransportError: no server can be reached, or it refuses us.
        """
        if self.id:
            return
        self.id = os.urandom(8).hex()
        self._numbers = itertools.count()
        try:
            await self.link.open(f"ketch transport {self.id}")
            self._check_payload()
            await self.link.listen(f"ketch-inbox.{self.id}.*", self._take)
        except BaseException:
            await self.close()
            raise

    def _check_payload(self) -> None:
        most = self.link.max_payload
        if most < _LEAST:
            raise TransportError(f"{self.link.location}: its max_payload is {most} bytes; calls need {_LEAST} at least")

    async def close(self) -> None:
        """Disconnect. Closing twice is no error."""
        self.id = ""
        await self.link.close()
        self._takers.clear()

    def expect(self, taker: Taker) -> str:
        """Return a fresh subject, whose messages are handed to `taker` until `forget`."""
        number = f"{next(self._numbers):x}"
        self._takers[number] = taker
        return f"ketch-inbox.{self.id}.{number}"

    def forget(self, subject: str) -> None:
        """Hand out no more of it."""
        self._takers.pop(subject.rpartition(".")[2], None)

    def send(self, subject: str, body: bytes, *, reply: str = "", headers: bytes = b"") -> None:
        """Send a message; see `publication`."""
        self.link.write(publication(subject, body, reply=reply, headers=headers))

    async def _take(self, batch: list[Received]) -> None:
        takers = self._takers
        for subject, headers, body, reply in batch:
            taker = takers.get(subject[subject.rfind(".") + 1 :])
            if taker is not None:  # else it came too late
                try:
                    taker(headers, body, reply)
                except Exception:
                    log.exception("nats: a message could not be taken")  # the others' are not to suffer
