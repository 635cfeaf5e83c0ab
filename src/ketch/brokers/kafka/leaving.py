"""Leaving a group, whatever it is doing."""

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
_PATIENCE: Final = 5.0


async def leave(consumer: AIOKafkaConsumer, topic: str) -> None:
    """Stop a consumer, which leaves its group."""
    stopping = asyncio.create_task(consumer.stop(), name=f"ketch leaving {topic}")
    _, late = await asyncio.wait({stopping}, timeout=_PATIENCE)
    if late:
        await _break_off(consumer, stopping)
        log.info("kafka: left %s in the middle of a rebalance", topic)
    elif (error := stopping.exception()) is not None:
        log.info("kafka: left %s without the server's answer: %s", topic, error)


async def _break_off(consumer: AIOKafkaConsumer, stopping: asyncio.Task[None]) -> None:
    # A member that waits for the others to join would wait on before it stops, and a driver whose stop is cancelled
    # leaves its connections open. So its waiting is ended, and then it goes as it would have gone.
    coordinator = consumer._coordinator  # noqa: SLF001 - there is no public way
    coordinator._coordination_task.cancel()  # noqa: SLF001
    await asyncio.wait({stopping}, timeout=_PATIENCE)
    with contextlib.suppress(KafkaError, OSError, TimeoutError):
        async with asyncio.timeout(_PATIENCE):
            await coordinator._maybe_leave_group()  # noqa: SLF001
    await consumer._client.close()  # noqa: SLF001
