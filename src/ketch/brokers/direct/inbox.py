"""Inbox: the receiving side, one for a process: batches come in, mailboxes get them."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from ...broker import Delivery
from ...errors import InvalidArgument
from ...transport import Request, Route, Stream
from .direct_pb2 import Receipt
from .peer import DELIVER
from .reading import Arrival, Reader

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...mailbox import Mailbox

log = logging.getLogger("ketch.broker")

#: Most events of one batch, several times what `Peer` can get into one; 4 MiB of empty ones would be two million.
_MOST = 65_536

#: Seconds between two complaints about what isn't a batch: whoever sends it must not fill the log.
_COMPLAIN = 10.0


class _Deliveries(Collection[Delivery]):
    """A batch as deliveries, which are made when a consumer takes them: those that wait cost little but their bytes.

    Each time they are new ones, since a delivery is one subscription's own.
    """

    __slots__ = ("_arrival",)

    def __init__(self, arrival: Arrival) -> None:
        self._arrival = arrival

    def __len__(self) -> int:
        return self._arrival.count

    def __iter__(self) -> Iterator[Delivery]:
        return map(Delivery, self._arrival.messages())

    def __contains__(self, delivery: object) -> bool:
        return False  # there are none before they are taken


class Inbox:
    """The mailboxes of a process's subscriptions, by id."""

    def __init__(self) -> None:
        self.mailboxes: dict[str, Mailbox] = {}
        self.publishers = 0
        self._garbage = 0
        self._reader = Reader()
        self._complained = -_COMPLAIN

    def routes(self) -> Mapping[str, Route]:
        """Return what a listener serves."""
        return {DELIVER: Route(stream=self._deliver)}

    async def _put(self, batch: Arrival, size: int) -> None:
        # An id that has left is no error. Each is looked at once, however often a publisher names it.
        mailboxes = [self.mailboxes[id_] for id_ in self.mailboxes.keys() & batch.subscriptions]
        deliveries = _Deliveries(batch)
        for mailbox in mailboxes:
            if mailbox.topic == batch.topic and not mailbox.offer(deliveries, size):
                await mailbox.offer_patiently(deliveries, size)

    async def _deliver(self, request: Request, stream: Stream) -> None:
        taken = 0
        self.publishers += 1
        try:
            while (body := await stream.receive()) is not None:
                batch = self._decode(request, body)
                await self._put(batch, len(body))
                taken += batch.count
            await stream.send(Receipt(events=taken).SerializeToString())
        finally:
            self.publishers -= 1

    def _decode(self, request: Request, body: bytes) -> Arrival:
        try:
            batch = self._reader.read(body)
        except DecodeError as error:
            self._complain(request)
            raise InvalidArgument(f"{len(body)} bytes are no batch of events") from error
        if batch.count > _MOST:
            self._complain(request)
            raise InvalidArgument(f"{batch.count} events in one batch are over the limit of {_MOST}")
        return batch

    def _complain(self, request: Request) -> None:
        self._garbage += 1
        now = time.monotonic()
        if now - self._complained >= _COMPLAIN:
            self._complained = now
            log.warning("%s sent what is no batch of events, the %d. such call here", request.peer, self._garbage)
