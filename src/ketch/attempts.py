"""Attempts: a call is made again elsewhere while no server has looked at it (gRPC's "transparent retry", A6).

That does no harm whatever the method does, so it needs no configuration: during a rolling restart the calls that meet a
closed port, or are refused unseen by an instance that is stopping, go to the next one.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from .errors import DeadlineExceeded, Unreachable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .finder import Finder
    from .transport import Channel

T = TypeVar("T")

#: Seconds between two rounds through the instances while a call waits for one to be ready; it doubles up to the second.
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0


@dataclass(frozen=True, slots=True)
class CallOptions:
    """How a stub's calls are made.

    Attributes:
        wait_for_ready: where no instance can be reached, wait for one until the call's deadline instead of failing
            (gRPC's wait-for-ready).
        compress: whether requests are compressed, None as the transport is configured.
        bounded: a unary call without a timeout gets the client's default.
    """

    wait_for_ready: bool = False
    compress: bool | None = None
    bounded: bool = True


USUAL: Final = CallOptions()


async def make(
    finder: Finder,
    service: str,
    send: Callable[[Channel, float | None], Awaitable[T]],
    *,
    timeout: float | None,
    began: float,
    options: CallOptions,
    failed: tuple[Channel, Unreachable] | None = None,
) -> T:
    """Make a call at one instance after the other until one can be reached.

    Args:
        finder: knows the instances.
        service: what is called.
        send: makes the call on a channel within so many seconds.
        timeout: seconds for all of it, None for no limit.
        began: when the call was begun, on `time.monotonic()`'s clock.
        options: how the call is made.
        failed: where it was tried in vain, and why it failed there.

    Raises:
        Unreachable: no instance can be reached, and the call doesn't wait for one.
        DeadlineExceeded: it waited as long as it was allowed.
        StatusError: what the call ended with.
    """
    tried = {failed[0]} if failed else set()
    error = failed[1] if failed else None
    pause = _FIRST_PAUSE
    while True:
        left = None if timeout is None else max(0.0, timeout - (time.monotonic() - began))
        channel = finder.pick(service, tried)
        if channel is None and error is not None:
            if not options.wait_for_ready:
                raise error
            if left == 0:
                raise DeadlineExceeded(f"not ready before the deadline: {error}") from error
            await finder.wait(pause if left is None else min(pause, left))
            pause = min(2 * pause, _LONGEST_PAUSE)
            tried, error = set(), None
            continue
        try:
            if channel is None:
                channel, left = await finder.find(service, left)
            tried.add(channel)
            return await send(channel, left)
        except Unreachable as unreachable:
            error = unreachable


async def ready(finder: Finder, service: str, timeout: float | None) -> None:
    """Wait until an instance can be reached.

    Raises:
        DeadlineExceeded: none could be within `timeout` seconds.
    """

    def send(channel: Channel, left: float | None) -> Awaitable[None]:
        return channel.ready(left)

    waiting = CallOptions(wait_for_ready=True)
    await make(finder, service, send, timeout=timeout, began=time.monotonic(), options=waiting)
