"""Google Cloud Pub/Sub: opening, publishing, subscribing."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, ClassVar, Self

import grpc.aio
from google.protobuf.duration_pb2 import Duration
from google.pubsub_v1 import types

from ...broker import PREFETCH, Broker, Capabilities, Site, Subscription
from ...errors import BrokerError, BrokerUnavailable, SubscriptionRefused
from .config import Config
from .envelope import MAX_BODY, wrap
from .names import subscription_path, topic_path
from .publishing import Lane
from .rpcs import Code, Rpcs, credentials, explain
from .subscription import PubSubSubscription

if TYPE_CHECKING:
    from ...message import Message
    from ...url import Url

log = logging.getLogger("ketch.broker")

_Topic: Any = types.Topic.pb()
_Subscription: Any = types.Subscription.pb()
_DeadLetterPolicy: Any = types.DeadLetterPolicy.pb()
_ExpirationPolicy: Any = types.ExpirationPolicy.pb()
_GetTopic: Any = types.GetTopicRequest.pb()
_GetSubscription: Any = types.GetSubscriptionRequest.pb()
_Delete: Any = types.DeleteSubscriptionRequest.pb()

#: Seconds after which Pub/Sub itself deletes a subscription without a group whose process was killed; its shortest.
_FORGOTTEN = 24 * 3600

#: Topics whose lanes are kept. More than that are published to through lanes of their own each time.
_LANES = 4096


class GooglePubSubBroker(Broker):
    """Carries events over Google Cloud Pub/Sub, at least once. A group's topic is one of its subscriptions."""

    name = "googlepubsub"
    capabilities: ClassVar[Capabilities] = Capabilities(
        durable=True,
        redelivers=True,
        keyed=True,
        delays_redelivery=True,
        max_message_size=MAX_BODY,
    )

    def __init__(self, config: Config) -> None:
        self._config = config
        self._rpcs: Rpcs | None = None
        self._lanes: dict[str, Lane] = {}
        self._subscriptions: list[PubSubSubscription] = []

    @classmethod
    def from_url(cls, url: Url) -> Self:
        """Build it from `googlepubsub://host:port/project`; see `config.py` for the options."""
        return cls(Config.from_url(url))

    @property
    def location(self) -> str:
        """The service and the project."""
        return self._config.location

    @property
    def trouble(self) -> str:
        """Whether the service can't be reached just now."""
        if self._rpcs is None or not self._rpcs.lost:
            return ""
        return f"{self.location} can't be reached"

    async def open(self, site: Site) -> None:  # noqa: ARG002 - nothing of the program is needed
        """Connect, and ask for a topic: whether it exists or not, an answer is an answer."""
        if self._rpcs is not None:
            return
        rpcs = Rpcs(self._config, await credentials(self._config))
        path = topic_path(self._config.project, "ketch.hello")
        seconds = self._config.connect_timeout
        try:
            await rpcs.call(rpcs.get_topic, _GetTopic(topic=path), "topic", path, seconds)
        except grpc.aio.AioRpcError as error:
            # Who may publish may not be allowed to look.
            if error.code() not in (Code.NOT_FOUND, Code.PERMISSION_DENIED):
                await rpcs.close()
                raise self._unreachable(error) from error
        self._rpcs = rpcs

    def _unreachable(self, error: grpc.aio.AioRpcError) -> BrokerError:
        found = explain(error, self.location, "can't connect")
        if isinstance(found, BrokerUnavailable):
            return BrokerUnavailable(f"{found}; is it running?")
        return found

    async def publish(self, message: Message, *, delay: float = 0.0) -> None:  # noqa: ARG002 - it declares no delay
        """Send the event, together with others of its topic, and wait for the service's confirmation."""
        if self._rpcs is None:
            raise self._closed()
        lane = self._lanes.get(message.topic) or self._lane(message.topic, self._rpcs)
        await lane.publish(wrap(message))

    def _lane(self, topic: str, rpcs: Rpcs) -> Lane:
        path = topic_path(self._config.project, topic)

        async def create() -> None:
            await self._create_topic(rpcs, path)

        lane = Lane(rpcs, path, create if self._config.create else None, self._config.timeout)
        if len(self._lanes) < _LANES:
            self._lanes[topic] = lane
        return lane

    async def subscribe(
        self,
        topic: str,
        *,
        group: str | None,
        prefetch: int = PREFETCH,
        since: float | None = None,  # noqa: ARG002 - it declares no replay
    ) -> Subscription:
        """Create the subscription if there is none, and begin to take."""
        rpcs = self._open_rpcs()
        path = subscription_path(self._config.project, topic, group)

        async def create() -> None:
            await self._create(rpcs, topic, path, group)

        if self._config.create or group is None:
            await create()
        else:
            await self._look_for(rpcs, topic, path)
        subscription = PubSubSubscription(
            rpcs,
            self._config,
            topic=topic,
            path=path,
            prefetch=prefetch,
            create=create if self._config.create or group is None else None,
            gone=self._forget if group is not None else self._delete,
        )
        self._subscriptions.append(subscription)
        try:
            await subscription.start()
        except BaseException:
            await subscription.close()
            raise
        return subscription

    async def declare(self, topic: str, *, group: str) -> None:
        """Create the group's subscription if there is none."""
        rpcs = self._open_rpcs()
        await self._create(rpcs, topic, subscription_path(self._config.project, topic, group), group)

    async def _look_for(self, rpcs: Rpcs, topic: str, path: str) -> None:
        """Refuse a subscription that isn't there; who may take its events may not be allowed to look."""
        try:
            await rpcs.call(
                rpcs.get_subscription, _GetSubscription(subscription=path), "subscription", path, self._config.timeout
            )
        except grpc.aio.AioRpcError as error:
            if error.code() is not Code.PERMISSION_DENIED:
                raise explain(error, self.location, f"can't subscribe to {topic}", SubscriptionRefused) from error

    async def _create(self, rpcs: Rpcs, topic: str, path: str, group: str | None) -> None:
        """Create a subscription, and its topic where that is missing too."""
        request = self._described(topic, path, group)
        for attempt in (1, 2):
            try:
                await rpcs.call(rpcs.create_subscription, request, "name", path, self._config.timeout)
            except grpc.aio.AioRpcError as error:
                if error.code() is Code.ALREADY_EXISTS:
                    return
                if error.code() is not Code.NOT_FOUND or attempt > 1 or not self._config.create:
                    raise explain(error, self.location, f"can't subscribe to {topic}", SubscriptionRefused) from error
                await self._create_topic(rpcs, request.topic)
                if request.dead_letter_policy.dead_letter_topic:
                    await self._create_topic(rpcs, request.dead_letter_policy.dead_letter_topic)
            else:
                return

    def _described(self, topic: str, path: str, group: str | None) -> Any:
        config = self._config
        described = _Subscription(
            name=path,
            topic=topic_path(config.project, topic),
            ack_deadline_seconds=config.ack_deadline,
            enable_message_ordering=True,
            # An empty policy is "never": Pub/Sub's default would delete a group that was away for 31 days.
            expiration_policy=_ExpirationPolicy(ttl=Duration(seconds=_FORGOTTEN) if group is None else None),
        )
        if config.dead_letter_topic and group is not None:
            described.dead_letter_policy.CopyFrom(
                _DeadLetterPolicy(
                    dead_letter_topic=topic_path(config.project, config.dead_letter_topic),
                    max_delivery_attempts=config.max_delivery_attempts,
                )
            )
        return described

    async def _create_topic(self, rpcs: Rpcs, path: str) -> None:
        try:
            await rpcs.call(rpcs.create_topic, _Topic(name=path), "name", path, self._config.timeout)
        except grpc.aio.AioRpcError as error:
            if error.code() is not Code.ALREADY_EXISTS:
                raise explain(error, self.location, f"can't create {path}") from error

    async def _forget(self, subscription: PubSubSubscription) -> None:
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)

    async def _delete(self, subscription: PubSubSubscription) -> None:
        await self._forget(subscription)
        if (rpcs := self._rpcs) is None:
            return
        path = subscription.path
        try:
            await rpcs.call(
                rpcs.delete_subscription, _Delete(subscription=path), "subscription", path, self._config.timeout
            )
        except grpc.aio.AioRpcError as error:
            if error.code() is not Code.NOT_FOUND:
                log.info("googlepubsub: %s is left to expire: %s", path, error.details())

    async def close(self) -> None:
        """Send what was published, close what is subscribed, disconnect."""
        if (rpcs := self._rpcs) is None:
            return
        await asyncio.gather(*(lane.close() for lane in self._lanes.values()))
        await asyncio.gather(*(subscription.close() for subscription in list(self._subscriptions)))
        self._rpcs = None
        self._lanes.clear()
        self._subscriptions.clear()
        await rpcs.close()

    def _open_rpcs(self) -> Rpcs:
        if self._rpcs is None:
            raise self._closed()
        return self._rpcs

    def _closed(self) -> BrokerUnavailable:
        return BrokerUnavailable("googlepubsub: the broker isn't open")
