"""A broker for a command: open while the command works."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ..broker import Broker
    from ..options import Options


@asynccontextmanager
async def connected(options: Options) -> AsyncIterator[Broker]:
    """Open the options' broker, and what it needs."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(options.registry)
        await stack.enter_async_context(options.transport)
        stack.push_async_callback(options.broker.close)
        await options.broker.open(options.site())
        yield options.broker
