"""Request and reply over a broker: a request is an event, and so is its reply.

A request carries `ketch-reply-to`, the topic that its reply goes to; a reply carries `ketch-reply-for`, the id of the
request, and where the handler failed `ketch-status` (gRPC's code) and `ketch-status-message`.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from .consumer import Consumer, Terms
from .context import current
from .errors import BrokerError, DeadlineExceeded, NotRunning, Unavailable, status_error
from .message import Message, event_headers, own_metadata, stamp
from .topic import Topic, expiry

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .broker import Broker
    from .codec import Codecs

Q = TypeVar("Q")
P = TypeVar("P")

REPLY_TO: Final = "ketch-reply-to"
REPLY_FOR: Final = "ketch-reply-for"
STATUS: Final = "ketch-status"
STATUS_MESSAGE: Final = "ketch-status-message"

#: Requests that wait for their replies, in one program.
_WAITING: Final = 65_536


class RequestTopic(Topic[Q], Generic[Q, P]):
    """A topic whose events are answered: what requesters and repliers share.

    Args:
        name: the topic's name at the broker, such as `user.find`.
        type_: the request's class.
        reply: the reply's class.
        content_type: how both are encoded, as of a topic.
    """

    __slots__ = ("reply",)

    def __init__(self, name: str, type_: type[Q], reply: type[P], *, content_type: str = "") -> None:
        super().__init__(name, type_, content_type=content_type, lifetime=math.inf)  # as long as its requester waits
        self.reply: Topic[P] = Topic(f"{name}.reply", reply, content_type=content_type)


class Replies:
    """The replies to one program's requests: a topic of its own, heard from the first request on."""

    def __init__(self, broker: Broker, codecs: Codecs, id_: str) -> None:
        self.broker = broker
        self.codecs = codecs
        self.topic = f"ketch.reply.{id_}"
        self._waiting: dict[str, asyncio.Future[Message]] = {}
        self._starting = asyncio.Lock()
        self._consumer: Consumer[Message] | None = None

    async def listen(self) -> None:
        """Begin to listen, unless that was done.

        Raises:
            BrokerError: the broker refuses or can't be reached.
        """
        async with self._starting:
            if self._consumer is None:
                consumer = Consumer(Topic(self.topic, Message), self._take, Terms(dead_letters=None))
                await consumer.start(self.broker, self.codecs)
                self._consumer = consumer

    async def _take(self, reply: Message) -> None:
        waiting = self._waiting.pop(reply.headers.get(REPLY_FOR, ""), None)
        if waiting is not None and not waiting.done():  # else it came too late, or twice
            waiting.set_result(reply)

    async def ask(self, request: Message, timeout: float) -> Message:
        """Publish a request and wait for its reply.

        Raises:
            DeadlineExceeded: none came in time.
            Unavailable: the broker did not take the request.
        """
        if len(self._waiting) >= _WAITING:
            raise Unavailable(f"{request.topic}: {_WAITING} requests wait for their replies already")
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting[request.id] = future
        try:
            async with asyncio.timeout(timeout):
                await self.broker.publish(request)
                return await future
        except TimeoutError:
            raise DeadlineExceeded(f"{request.topic}: no reply within {timeout:g} s") from None
        except BrokerError as error:
            raise Unavailable(f"{request.topic}: {error}") from error
        finally:
            self._waiting.pop(request.id, None)

    async def close(self) -> None:
        """Listen no more; who waits for a reply is told."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.close()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(Unavailable("the program stops"))


class Requester(Generic[Q, P]):
    """Makes requests of one topic. Declared with the service, usable while it runs."""

    def __init__(self, topic: RequestTopic[Q, P]) -> None:
        self.topic = topic
        self._replies: Replies | None = None
        self._shared: Mapping[str, str] = {}
        self._timeout = 0.0

    def bind(self, replies: Replies, *, source: str, timeout: float) -> None:
        """Connect it to an open broker; the service does this at start.

        Raises:
            ConfigurationError: no codec speaks the topic's content type.
        """
        codecs = replies.codecs
        codec = codecs.find(self.topic.content_type)
        self._encode = codec.encoder(self.topic.type)
        self._decode = codecs.find(self.topic.reply.content_type).decoder(self.topic.reply.type)
        shared = event_headers(source=source, type=self.topic.event_type, content_type=codec.content_type)
        self._shared = {**shared, REPLY_TO: replies.topic}
        self._timeout = timeout
        self._replies = replies

    def unbind(self) -> None:
        """Disconnect it; requests are an error from now on."""
        self._replies = None

    async def request(
        self, payload: Q, *, timeout: float | None = None, metadata: Mapping[str, str] | None = None
    ) -> P:
        """Publish a request and return its reply, that of the first who answers.

        Args:
            payload: the request.
            timeout: seconds to wait; by default what calls have.
            metadata: travels as headers and reaches the handler's context.

        Raises:
            StatusError: what the handler raised, with its code: `NotFound` there is `NotFound` here; another exception
                is `Unknown`. `DeadlineExceeded` when no reply came in time, `Unavailable` when the broker took no
                request.
            CodecError: the payload isn't of the topic's type, or the reply not of its own.
            BrokerError: the replies' topic can't be subscribed to.
            NotRunning: the service isn't running.
        """
        replies = self._replies
        if replies is None:
            raise NotRunning(f"a request to {self.topic.name} before the service started or after it stopped")
        await replies.listen()
        timeout = self._timeout if timeout is None else timeout
        headers = {**stamp(self._shared), **expiry(timeout or math.inf)}
        if metadata:
            headers.update(own_metadata(metadata))
        message = Message(self.topic.name, headers, self._encode(payload))
        reply = await replies.ask(message, _within(timeout))
        code = reply.headers.get(STATUS, "0")
        if code != "0":
            raise status_error(int(code) if code.isdecimal() else 2, reply.headers.get(STATUS_MESSAGE, ""))
        decoded: Any = self._decode(reply.body)
        return decoded  # type: ignore[no-any-return]  # a decoder's result is of the type that it was made for


def _within(timeout: float) -> float:
    # A handler's own deadline bounds the requests it makes, too: nobody waits for their replies after it.
    left = current().remaining()
    return timeout if left is None else min(left, timeout)
