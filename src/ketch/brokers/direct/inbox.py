"""Inbox: the receiving side, one for a process: batches come in, mailboxes get them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from ...broker import Delivery
from ...errors import InvalidArgument
from ...transport import Request, Route, Stream
from .direct_pb2 import Batch, Receipt
from .peer import DELIVER
from .wire import messages

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ...mailbox import Mailbox
    from ...message import Message

log = logging.getLogger("ketch.broker")


class Inbox:
    """The mailboxes of a process's subscriptions, by id."""

    def __init__(self) -> None:
        self.mailboxes: dict[str, Mailbox] = {}
        self.publishers = 0

    def routes(self) -> Mapping[str, Route]:
        """Return what a listener serves."""
        return {DELIVER: Route(stream=self._deliver)}

    async def put(self, ids: Sequence[str], received: Sequence[Message]) -> None:
        """Put messages into the mailboxes of those ids; an id that has left is no error."""
        for id_ in ids:
            mailbox = self.mailboxes.get(id_)
            if mailbox is not None:
                # A delivery is one subscription's own.
                deliveries = [Delivery(message) for message in received]
                if not mailbox.offer(deliveries):
                    await mailbox.offer_patiently(deliveries)

    async def _deliver(self, request: Request, stream: Stream) -> None:
        taken = 0
        self.publishers += 1
        try:
            while (body := await stream.receive()) is not None:
                try:
                    batch = Batch.FromString(body)
                except DecodeError as error:
                    log.warning("%s sent %d bytes that are no batch of events", request.peer, len(body))
                    raise InvalidArgument(f"{len(body)} bytes are no batch of events") from error
                received = messages(batch)
                await self.put(batch.subscriptions, received)
                taken += len(received)
            await stream.send(Receipt(events=taken).SerializeToString())
        finally:
            self.publishers -= 1
