"""Place: a topic at SNS, a queue at SQS, and the subscription that leads from one to the other."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import BrokerError, BrokerUnavailable, SubscriptionRefused
from .failures import code_of, is_gone
from .names import topic_name

if TYPE_CHECKING:
    from .aws import Aws

#: Tags of a queue without a group: when its process was last seen, in UNIX seconds, and its subscription at SNS.
ALIVE = "ketch-alive"
LEADS_HERE = "ketch-subscription"

_EXISTS = frozenset({"QueueNameExists", "QueueAlreadyExists"})


@dataclass(frozen=True, slots=True)
class Place:
    """Where a subscription's events wait.

    Attributes:
        queue: the queue's URL.
        subscription: the ARN of the subscription at SNS.
    """

    queue: str
    subscription: str


async def topic_arn(aws: Aws, topic: str) -> str:
    """Make a topic exist, and return its ARN."""
    reply = await aws.call("sns", "create_topic", Name=topic_name(aws.config.prefix, topic))
    return str(reply["TopicArn"])


async def declare(aws: Aws, topic: str, queue: str, *, alone: bool) -> Place:
    """Make a topic, a queue and what binds them exist; all may exist already.

    Raises:
        BrokerUnavailable: AWS can't be reached.
        SubscriptionRefused: it won't let us.
    """
    try:
        arn = await topic_arn(aws, topic)
        queue_arn = _queue_arn(arn, queue)
        url = await _queue(aws, queue, _policy(arn, queue_arn), alone=alone)
        reply = await aws.call(
            "sns",
            "subscribe",
            TopicArn=arn,
            Protocol="sqs",
            Endpoint=queue_arn,
            Attributes={"RawMessageDelivery": "true"},
            ReturnSubscriptionArn=True,
        )
        place = Place(url, str(reply["SubscriptionArn"]))
        if alone:
            await alive(aws, place)
    except BrokerUnavailable:
        raise
    except BrokerError as error:
        raise SubscriptionRefused(f"{topic}: {error}") from error.__cause__
    return place


def _queue_arn(arn: str, queue: str) -> str:
    """Return the ARN of a queue in the same partition, region and account as a topic."""
    _, partition, _, region, account, _ = arn.split(":", 5)
    return f"arn:{partition}:sqs:{region}:{account}:{queue}"


def _policy(topic: str, queue: str) -> str:
    """Return a policy that lets a topic, and no other, send to a queue."""
    statement = {
        "Effect": "Allow",
        "Principal": {"Service": "sns.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": queue,
        "Condition": {"ArnEquals": {"aws:SourceArn": topic}},
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


async def _queue(aws: Aws, name: str, policy: str, *, alone: bool) -> str:
    attributes = {
        "MessageRetentionPeriod": str(aws.config.retention),
        "VisibilityTimeout": str(aws.config.visibility),
        "Policy": policy,
    }
    tags: dict[str, Any] = {"tags": {ALIVE: str(int(time.time()))}} if alone else {}
    try:
        reply = await aws.call("sqs", "create_queue", QueueName=name, Attributes=attributes, **tags)
    except BrokerError as error:
        if code_of(error) not in _EXISTS:
            raise
        return await _existing(aws, name, policy)
    return str(reply["QueueUrl"])


async def _existing(aws: Aws, name: str, policy: str) -> str:
    """Take a queue as somebody else has set it, but let the topic send to it where nobody was allowed to."""
    url = str((await aws.call("sqs", "get_queue_url", QueueName=name))["QueueUrl"])
    reply = await aws.call("sqs", "get_queue_attributes", QueueUrl=url, AttributeNames=["Policy"])
    if not reply.get("Attributes", {}).get("Policy"):
        await aws.call("sqs", "set_queue_attributes", QueueUrl=url, Attributes={"Policy": policy})
    return url


async def alive(aws: Aws, place: Place) -> None:
    """Say on a queue without a group that its process lives."""
    tags = {ALIVE: str(int(time.time())), LEADS_HERE: place.subscription}
    await aws.call("sqs", "tag_queue", QueueUrl=place.queue, Tags=tags)


async def remove(aws: Aws, place: Place) -> None:
    """Delete a queue and the subscription that leads to it."""
    # In this order: SNS would try in vain, and go on trying.
    calls: tuple[tuple[str, str, dict[str, Any]], ...] = (
        ("sns", "unsubscribe", {"SubscriptionArn": place.subscription}),
        ("sqs", "delete_queue", {"QueueUrl": place.queue}),
    )
    for service, operation, params in calls:
        try:
            await aws.call(service, operation, **params)
        except BrokerError as error:
            if not is_gone(error):
                raise
