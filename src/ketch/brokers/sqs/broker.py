"""The broker: opening, publishing, subscribing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ClassVar, Self
from uuid import uuid4

from ...broker import PREFETCH, Broker, Capabilities, Site, Subscription
from ...errors import BrokerUnavailable
from .aws import Aws
from .config import Config
from .leftovers import remove_leftovers
from .names import lone_name, queue_name
from .outbox import Outbox
from .place import declare
from .subscription import SqsSubscription
from .wire import encode, largest_body

if TYPE_CHECKING:
    from ...message import Message
    from ...url import Url

#: Topics whose outboxes are kept, should they be more than are in use.
_TOPICS = 4096


class SqsBroker(Broker):
    """Carries events through SNS topics to SQS queues, at least once. A group's share of a topic is a queue."""

    name = "sqs"
    capabilities: ClassVar[Capabilities] = Capabilities(
        durable=True,
        redelivers=True,
        counts=True,
        delays_redelivery=True,
        max_message_size=largest_body(256 * 1024),
    )

    def __init__(self, config: Config) -> None:
        self._config = config
        self._aws: Aws | None = None
        self._outboxes: dict[str, Outbox] = {}
        self._subscriptions: set[SqsSubscription] = set()
        self._sweeping: asyncio.Task[None] | None = None

    @classmethod
    def from_url(cls, url: Url) -> Self:
        """Build it from `sqs://`, or `sqs://key:secret@host:port` for another endpoint; see `config.py`."""
        return cls(Config.from_url(url))

    @property
    def location(self) -> str:
        """The endpoint and the region."""
        return self._config.location

    @property
    def trouble(self) -> str:
        """Whether the endpoint can't be reached just now."""
        return self._aws.trouble if self._aws is not None else ""

    async def open(self, site: Site) -> None:  # noqa: ARG002 - nothing of the program is needed
        """Look whether the endpoint answers and knows us."""
        if self._aws is None:
            aws = Aws(self._config)
            await aws.open()
            self._aws = aws

    async def publish(self, message: Message, *, delay: float = 0.0) -> None:  # noqa: ARG002 - it declares no delay
        """Hand the event to SNS, together with others of the same moment."""
        aws = self._opened()
        outbox = self._outboxes.get(message.topic) or self._outbox(aws, message.topic)
        await outbox.put(*encode(message, self._config.max_size))

    def _outbox(self, aws: Aws, topic: str) -> Outbox:
        if len(self._outboxes) >= _TOPICS:
            self._outboxes = {name: outbox for name, outbox in self._outboxes.items() if not outbox.idle}
        outbox = self._outboxes[topic] = Outbox(aws, topic)
        return outbox

    async def subscribe(
        self,
        topic: str,
        *,
        group: str | None,
        prefetch: int = PREFETCH,
        since: float | None = None,  # noqa: ARG002 - it declares no replay
    ) -> Subscription:
        """Make the topic lead to the group's queue, and begin to poll it."""
        aws = self._opened()
        prefix = self._config.prefix
        alone = group is None
        queue = lone_name(prefix, topic, uuid4().hex) if group is None else queue_name(prefix, group, topic)
        if alone and self._sweeping is None:
            self._sweeping = asyncio.create_task(remove_leftovers(aws), name="sqs: removing leftovers")
        place = await declare(aws, topic, queue, alone=alone)
        subscription = SqsSubscription(aws, topic, queue, place, prefetch, alone=alone)
        self._subscriptions = {other for other in self._subscriptions if not other.closed} | {subscription}
        return subscription

    async def declare(self, topic: str, *, group: str) -> None:
        """Make the topic lead to the group's queue."""
        await declare(self._opened(), topic, queue_name(self._config.prefix, group, topic), alone=False)

    async def close(self) -> None:
        """Send what was published, close the subscriptions, disconnect."""
        aws, self._aws = self._aws, None
        if aws is None:
            return
        sweeping, self._sweeping = self._sweeping, None
        if sweeping is not None:
            sweeping.cancel()
            await asyncio.wait({sweeping})
        await asyncio.gather(*(outbox.drained() for outbox in self._outboxes.values()))
        self._outboxes.clear()
        await asyncio.gather(*(subscription.close() for subscription in self._subscriptions))
        self._subscriptions.clear()
        await aws.close()

    def _opened(self) -> Aws:
        if self._aws is None:
            raise BrokerUnavailable("sqs: the broker isn't open")
        return self._aws
