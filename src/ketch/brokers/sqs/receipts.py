"""Receipts: what AWS knows a received message by, and how it is deleted, hidden on and given back by it."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ...broker import Delivery
    from .aws import Aws

#: Entries of a batch (SQS: DeleteMessageBatch, ChangeMessageVisibilityBatch).
_BATCH = 10

#: Seconds for which a message can be hidden, from when it was received (SQS: ChangeMessageVisibility).
_LONGEST = 43_200


@dataclass(slots=True)
class Receipt:
    """What a message was received by.

    Attributes:
        handle: AWS's receipt handle.
        since: when it was received.
        until: when others will see it again; both by the monotonic clock.
    """

    handle: str
    since: float
    until: float


def receipt(delivery: Delivery) -> Receipt:
    """Return a delivery's receipt."""
    assert isinstance(delivery.raw, Receipt)  # noqa: S101 - deliveries come from our subscriptions
    return delivery.raw


async def delete(aws: Aws, queue: str, deliveries: Sequence[Delivery]) -> None:
    """Delete deliveries.

    Raises:
        BrokerError: some of them were not, and will come again.
    """
    entries = [{"ReceiptHandle": receipt(delivery).handle} for delivery in deliveries]
    _check(await _batches(aws, queue, "delete_message_batch", entries))


async def give_back(aws: Aws, queue: str, deliveries: Sequence[Delivery]) -> None:
    """Let others see deliveries again, each after its `retry_after`.

    Raises:
        BrokerError: some of them come again when their time is up.
    """
    entries = [
        {"ReceiptHandle": receipt(delivery).handle, "VisibilityTimeout": _seconds(delivery)} for delivery in deliveries
    ]
    _check(await _batches(aws, queue, "change_message_visibility_batch", entries))


def _seconds(delivery: Delivery) -> int:
    left = _LONGEST - (time.monotonic() - receipt(delivery).since) - 1
    return max(0, min(math.ceil(delivery.retry_after), int(left)))


async def hide(aws: Aws, queue: str, deliveries: Sequence[Delivery], seconds: int) -> list[Delivery]:
    """Hide deliveries on, from now; return those that can't be: they are somebody else's, or gone."""
    began = time.monotonic()
    entries = [{"ReceiptHandle": receipt(delivery).handle, "VisibilityTimeout": seconds} for delivery in deliveries]
    failed = await _batches(aws, queue, "change_message_visibility_batch", entries)
    for number, delivery in enumerate(deliveries):
        if number not in failed:
            receipt(delivery).until = began + seconds
    return [deliveries[number] for number in failed]


def _check(failed: dict[int, str]) -> None:
    if failed:
        why = next(iter(failed.values()))
        raise BrokerError(f"sqs: {len(failed)} deliveries were not settled and will come again: {why}")


async def _batches(aws: Aws, queue: str, operation: str, entries: list[dict[str, Any]]) -> dict[int, str]:
    """Make as many calls as there are tens of entries, side by side; return what failed, and why."""
    numbered = [{"Id": str(number), **entry} for number, entry in enumerate(entries)]
    failed: dict[int, str] = {}
    errors: list[BrokerError] = []

    async def one(batch: list[dict[str, Any]]) -> None:
        try:
            reply = await aws.call("sqs", operation, QueueUrl=queue, Entries=batch)
        except BrokerError as error:
            errors.append(error)
        else:
            failed.update((int(entry["Id"]), str(entry.get("Code"))) for entry in reply.get("Failed", ()))

    batches = list(_tens(numbered))
    if len(batches) == 1:
        await one(batches[0])
    else:
        async with asyncio.TaskGroup() as group:
            for batch in batches:
                group.create_task(one(batch))
    if errors:
        raise errors[0]
    return failed


def _tens(entries: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    for begin in range(0, len(entries), _BATCH):
        yield entries[begin : begin + _BATCH]
