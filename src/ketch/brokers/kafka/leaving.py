"""Leaving: ends a driver's consumer within bounded time, which the driver alone doesn't."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Final

from aiokafka.errors import KafkaError

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer

log = logging.getLogger("ketch.broker")

#: Seconds for each step.
_LEAVE: Final = 5.0


async def leave(consumer: AIOKafkaConsumer, topic: str) -> None:
    """Leave the group and disconnect, though the group is being rebalanced or the server doesn't answer."""
    stopping = asyncio.create_task(consumer.stop(), name=f"ketch leaving {topic}")
    try:
        _, late = await asyncio.wait({stopping}, timeout=_LEAVE)
    except asyncio.CancelledError:
        stopping.cancel()
        raise
    if late:
        await _break_off(consumer, stopping, topic)
    elif not stopping.cancelled() and (error := stopping.exception()) is not None:
        log.info("kafka: left %s without the server's answer: %s", topic, error)


async def _break_off(consumer: AIOKafkaConsumer, stopping: asyncio.Task[None], topic: str) -> None:
    """End a member that is waiting for a rebalance, as the driver would if that were over."""
    coordinator = consumer._coordinator  # noqa: SLF001 - the driver waits without end otherwise
    coordination = getattr(coordinator, "_coordination_task", None)  # a reader without a group has none
    if coordination is not None:
        coordination.cancel()
        await asyncio.wait({stopping}, timeout=_LEAVE)
        with contextlib.suppress(KafkaError, OSError, TimeoutError):
            async with asyncio.timeout(_LEAVE):
                await coordinator._maybe_leave_group()  # noqa: SLF001
    stopping.cancel()
    await asyncio.wait({stopping}, timeout=_LEAVE)
    await consumer._client.close()  # noqa: SLF001
    log.info("kafka: left %s in the middle of a rebalance", topic)
