"""Service: Pub/Sub's methods (google/pubsub/v1/pubsub.proto), as far as publishing and pulling need them."""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from google.protobuf.empty_pb2 import Empty
from google.pubsub_v1 import types

from .subscription import Stream, Subscription

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from .journal import Journal

Code = grpc.StatusCode

Topic: Any = types.Topic.pb()
Described: Any = types.Subscription.pb()
PublishRequest: Any = types.PublishRequest.pb()
Acknowledge: Any = types.AcknowledgeRequest.pb()
DeleteTopic: Any = types.DeleteTopicRequest.pb()
DeleteSubscription: Any = types.DeleteSubscriptionRequest.pb()
_PublishResponse: Any = types.PublishResponse.pb()
_PullResponse: Any = types.PullResponse.pb()
_StreamingPullResponse: Any = types.StreamingPullResponse.pb()

#: What the journal keeps.
KINDS = (Topic, Described, PublishRequest, Acknowledge, DeleteTopic, DeleteSubscription)

_NAME = re.compile(r"projects/[^/]+/(topics|subscriptions)/(?!goog)[A-Za-z][A-Za-z0-9._~+%-]{2,254}")
_MOST_MESSAGES = 1000
_MOST_BYTES = 10_000_000
_LONGEST_DEADLINE = 600

#: Events and bytes in one answer of a streaming pull.
_ANSWER = 200
_ANSWER_BYTES = 4_000_000


class Service:
    """Topics, subscriptions and their events."""

    def __init__(self, journal: Journal, shortest: int) -> None:
        """Take up where the journal ends.

        Args:
            journal: what happened before.
            shortest: shortest ack deadline in seconds; the real service's is 10.
        """
        self._journal = journal
        self._shortest = shortest
        self._topics: dict[str, Any] = {}
        self._subscriptions: dict[str, Subscription] = {}
        self._ids = itertools.count(time.time_ns())
        for message in journal.read():
            self._apply(message)

    def _apply(self, message: Any) -> None:
        if isinstance(message, Topic):
            self._topics[message.name] = message
        elif isinstance(message, Described):
            self._subscriptions[message.name] = Subscription(message, self._bury)
        elif isinstance(message, PublishRequest):
            for subscription in self._of_topic(message.topic):
                for one in message.messages:
                    subscription.put(one)
        elif isinstance(message, Acknowledge):
            if message.subscription in self._subscriptions:
                self._subscriptions[message.subscription].forget(list(message.ack_ids))
        elif isinstance(message, DeleteTopic):
            self._topics.pop(message.topic, None)
        elif (gone := self._subscriptions.pop(message.subscription, None)) is not None:
            gone.end()

    def _do(self, message: Any) -> None:
        self._journal.write(message)
        self._apply(message)

    def _of_topic(self, topic: str) -> list[Subscription]:
        return [s for s in self._subscriptions.values() if s.described.topic == topic]

    def _bury(self, subscription: Subscription, message: Any) -> None:
        described = subscription.described
        self._journal.write(Acknowledge(subscription=described.name, ack_ids=[message.message_id]))
        dead = type(message)()
        dead.CopyFrom(message)
        dead.message_id = str(next(self._ids))
        dead.attributes["CloudPubSubDeadLetterSourceSubscription"] = described.name.rpartition("/")[2]
        topic = described.dead_letter_policy.dead_letter_topic
        if topic in self._topics:
            self._do(PublishRequest(topic=topic, messages=[dead]))
            for one in self._of_topic(topic):
                one.deal()

    # --- topics

    async def create_topic(self, request: Any, context: Any) -> Any:
        """Create a topic."""
        await _named(request.name, context)
        if request.name in self._topics:
            await context.abort(Code.ALREADY_EXISTS, f"Resource already exists in the project: {request.name}")
        self._do(request)
        return request

    async def get_topic(self, request: Any, context: Any) -> Any:
        """Return a topic."""
        await self._topic(request.topic, context)
        return self._topics[request.topic]

    async def delete_topic(self, request: Any, context: Any) -> Any:
        """Delete a topic; its subscriptions stay."""
        await self._topic(request.topic, context)
        self._do(request)
        return Empty()

    async def _topic(self, name: str, context: Any) -> None:
        if name not in self._topics:
            await context.abort(Code.NOT_FOUND, f"Resource not found (resource={name.rpartition('/')[2]}).")

    async def publish(self, request: Any, context: Any) -> Any:
        """Take events in; they are kept when this returns."""
        await self._topic(request.topic, context)
        if not 0 < len(request.messages) <= _MOST_MESSAGES or request.ByteSize() > _MOST_BYTES:
            await context.abort(Code.INVALID_ARGUMENT, "The request has too many or too large messages, or none.")
        for message in request.messages:
            if wrong := _wrong(message):
                await context.abort(Code.INVALID_ARGUMENT, wrong)
            message.message_id = str(next(self._ids))
            message.publish_time.FromNanoseconds(time.time_ns())
        self._do(request)
        for subscription in self._of_topic(request.topic):
            subscription.deal()
        return _PublishResponse(message_ids=[message.message_id for message in request.messages])

    # --- subscriptions

    async def create_subscription(self, request: Any, context: Any) -> Any:
        """Create a subscription to what is published from now on."""
        await _named(request.name, context)
        if request.name in self._subscriptions:
            await context.abort(Code.ALREADY_EXISTS, f"Resource already exists in the project: {request.name}")
        await self._topic(request.topic, context)
        if policy := request.dead_letter_policy.dead_letter_topic:
            await self._topic(policy, context)
        await self._deadline(request.ack_deadline_seconds, self._shortest, context)
        self._do(request)
        return request

    async def get_subscription(self, request: Any, context: Any) -> Any:
        """Return a subscription."""
        return (await self._subscription(request.subscription, context)).described

    async def delete_subscription(self, request: Any, context: Any) -> Any:
        """Delete a subscription and what waits in it."""
        await self._subscription(request.subscription, context)
        self._do(request)
        return Empty()

    async def _subscription(self, name: str, context: Any) -> Subscription:
        if name not in self._subscriptions:
            await context.abort(Code.NOT_FOUND, f"Resource not found (resource={name.rpartition('/')[2]}).")
        return self._subscriptions[name]

    async def _deadline(self, seconds: int, shortest: int, context: Any) -> None:
        if not shortest <= seconds <= _LONGEST_DEADLINE:
            await context.abort(Code.INVALID_ARGUMENT, f"Invalid ack deadline given: {seconds}")

    async def acknowledge(self, request: Any, context: Any) -> Any:
        """Be done with events."""
        self._acknowledge(await self._subscription(request.subscription, context), request.ack_ids)
        return Empty()

    def _acknowledge(self, subscription: Subscription, ack_ids: Any) -> None:
        done = subscription.acknowledge(list(ack_ids))
        if done:
            self._journal.write(Acknowledge(subscription=subscription.described.name, ack_ids=done))

    async def modify_deadline(self, request: Any, context: Any) -> Any:
        """Extend leases, or end them."""
        subscription = await self._subscription(request.subscription, context)
        await self._deadline(request.ack_deadline_seconds, 0, context)
        subscription.extend(list(request.ack_ids), request.ack_deadline_seconds)
        return Empty()

    async def pull(self, request: Any, context: Any) -> Any:
        """Lease out what waits."""
        subscription = await self._subscription(request.subscription, context)
        entries = subscription.pull(request.max_messages)
        return _PullResponse(received_messages=[subscription.received(entry) for entry in entries])

    async def streaming_pull(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        """Lease out what waits and what comes, until the client ends the stream."""
        first = await anext(aiter(requests))
        subscription = await self._subscription(first.subscription, context)
        await self._deadline(first.stream_ack_deadline_seconds, self._shortest, context)
        stream = Stream(first.max_outstanding_messages, first.max_outstanding_bytes, first.stream_ack_deadline_seconds)
        subscription.streams.append(stream)
        listening = asyncio.create_task(self._listen(subscription, stream, requests))
        subscription.deal()
        try:
            while stream.open or stream.outbox:
                if answer := _answer(subscription, stream):
                    yield _StreamingPullResponse(received_messages=answer)
                elif stream.open:
                    stream.news.clear()
                    await stream.news.wait()
            if self._subscriptions.get(first.subscription) is not subscription:
                await self._subscription(first.subscription, context)
        finally:
            listening.cancel()
            subscription.leave(stream)

    async def _listen(self, subscription: Subscription, stream: Stream, requests: AsyncIterator[Any]) -> None:
        """Carry out what a client says in its stream."""
        async for request in requests:
            self._acknowledge(subscription, request.ack_ids)
            pairs = zip(request.modify_deadline_ack_ids, request.modify_deadline_seconds, strict=False)
            for ack_id, seconds in pairs:
                subscription.extend([ack_id], seconds)
        subscription.close_softly(stream)

    def methods(self) -> dict[str, dict[str, Any]]:
        """Return the handlers by service and method."""
        unary = grpc.unary_unary_rpc_method_handler

        def handler(make: Any, act: Any, request: Any) -> Any:
            return make(act, request.FromString, lambda message: message.SerializeToString())

        pull, streaming = types.PullRequest.pb(), types.StreamingPullRequest.pb()
        return {
            "google.pubsub.v1.Publisher": {
                "CreateTopic": handler(unary, self.create_topic, Topic),
                "GetTopic": handler(unary, self.get_topic, types.GetTopicRequest.pb()),
                "DeleteTopic": handler(unary, self.delete_topic, DeleteTopic),
                "Publish": handler(unary, self.publish, PublishRequest),
            },
            "google.pubsub.v1.Subscriber": {
                "CreateSubscription": handler(unary, self.create_subscription, Described),
                "GetSubscription": handler(unary, self.get_subscription, types.GetSubscriptionRequest.pb()),
                "DeleteSubscription": handler(unary, self.delete_subscription, DeleteSubscription),
                "Acknowledge": handler(unary, self.acknowledge, Acknowledge),
                "ModifyAckDeadline": handler(unary, self.modify_deadline, types.ModifyAckDeadlineRequest.pb()),
                "Pull": handler(unary, self.pull, pull),
                "StreamingPull": handler(grpc.stream_stream_rpc_method_handler, self.streaming_pull, streaming),
            },
        }


async def _named(name: str, context: Any) -> None:
    if _NAME.fullmatch(name) is None:
        await context.abort(Code.INVALID_ARGUMENT, f"Invalid resource name given (name={name}).")


def _wrong(message: Any) -> str:
    """Return what Pub/Sub would not take (cloud.google.com/pubsub/quotas#resource_limits)."""
    attributes = message.attributes
    if not message.data and not attributes:
        return "A message has neither data nor attributes."
    if len(attributes) > 100 or len(message.ordering_key.encode()) > 1024:
        return "Too many attributes, or too long an ordering key."
    for name, value in attributes.items():
        if not 0 < len(name.encode()) <= 256 or name.startswith("goog") or len(value.encode()) > 1024:
            return f"The attribute {name[:50]!r} is not allowed."
    return ""


def _answer(subscription: Subscription, stream: Stream) -> list[Any]:
    answer: list[Any] = []
    size = 0
    while stream.outbox and len(answer) < _ANSWER and size < _ANSWER_BYTES:
        ack_id, entry = stream.outbox.popleft()
        if entry.ack_id == ack_id:  # else it was taken back meanwhile
            answer.append(subscription.received(entry))
            size += entry.size
    return answer
