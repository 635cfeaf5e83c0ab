"""Replier: a handler whose result is published as the reply to its request."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Generic, TypeVar

from . import context
from .errors import BrokerError, CodecError, DeadlineExceeded, InvalidArgument, KetchError, StatusError, Unknown
from .message import Message, event_headers, stamp
from .request import REPLY_FOR, REPLY_TO, STATUS, STATUS_MESSAGE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from .broker import Broker
    from .codec import Codecs
    from .request import RequestTopic

Q = TypeVar("Q")
P = TypeVar("P")

log = logging.getLogger("ketch.consumer")

#: Characters of an error's message that go with a reply.
_MESSAGE = 1000


class Replier(Generic[Q, P]):
    """What a consumer calls with a request, and when it gives one up. Either way the requester gets its reply."""

    def __init__(self, topic: RequestTopic[Q, P], handler: Callable[[Q], Awaitable[P]]) -> None:
        self.topic = topic
        self.handler = handler
        self.__module__ = handler.__module__
        self.__qualname__ = getattr(handler, "__qualname__", type(handler).__qualname__)
        self._broker: Broker | None = None
        self._shared: Mapping[str, str] = {}

    def bind(self, broker: Broker, codecs: Codecs, *, source: str) -> None:
        """Connect it to an open broker; the service does this at start.

        Raises:
            ConfigurationError: no codec speaks the reply's content type.
        """
        reply = self.topic.reply
        codec = codecs.find(reply.content_type)
        self._encode = codec.encoder(reply.type)
        self._shared = event_headers(source=source, type=reply.event_type, content_type=codec.content_type)
        self._broker = broker

    def unbind(self) -> None:
        """Disconnect it."""
        self._broker = None

    async def __call__(self, request: Q) -> None:
        """Handle a request and publish the reply."""
        message = context.current().message
        if message is None:
            raise BrokerError(f"{self.__qualname__} answers requests one by one")
        try:
            result = await self.handler(request)
        except StatusError as error:
            await self.refuse(message, error)  # an answer like another
            return
        await self._reply(message, {}, self._encode(result))

    async def refuse(self, request: Message, error: BaseException) -> None:
        """Publish an error as the reply to a request that is given up."""
        status = _status(error)
        headers = {STATUS: str(int(status.code)), STATUS_MESSAGE: _one_line(status.message)}
        try:
            await self._reply(request, headers, b"")
        except KetchError as failure:
            log.warning("%s: the requester of %r was not told: %s", self.__qualname__, request, failure)

    async def _reply(self, request: Message, headers: dict[str, str], body: bytes) -> None:
        to = request.headers.get(REPLY_TO)
        if not to:
            return  # an event that nobody waits for an answer to
        if self._broker is None:
            raise BrokerError("the service has stopped")
        said = {**stamp(self._shared), **headers, REPLY_FOR: request.id}
        await self._broker.publish(Message(to, said, body))


def _status(error: BaseException) -> StatusError:
    if isinstance(error, StatusError):
        return error
    if isinstance(error, CodecError):
        return InvalidArgument(str(error))
    if isinstance(error, TimeoutError):
        return DeadlineExceeded("the handler took too long")
    # As with calls: what a handler's own exception says is not for its callers.
    return Unknown(f"the handler failed: {type(error).__name__}")


def _one_line(text: str) -> str:
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())[:_MESSAGE]
