"""ketch tail: a topic's events as they come, until Ctrl-C."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from .. import settings
from ..broker import Outcome
from ..consumer import Terms
from ..errors import CapabilityError
from ..logs import configure
from ..message import Message
from ..options import Options, build
from ..plugins import Plugins
from ..topic import Topic
from .connection import connected
from .output import positive
from .show import Show

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser("tail", help="print a topic's events as they come", description=__doc__)
    add = parser.add_argument
    add("topic")
    add("--group", help="share the events with a group instead of seeing them all: takes them away from its members")
    add("--count", type=positive, help="end after so many events")
    add("--since", type=float, metavar="SECONDS", help="begin so long ago, where the broker keeps events")
    add("--type", default="", metavar="MODULE:CLASS", help="a protobuf class to decode bodies with")
    add("--json", action="store_true", help="one JSON object a line")
    settings.add_flags(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print until interrupted, or until `--count` is reached."""
    show = Show(arguments.type, as_json=arguments.json)
    options = build(settings.read(arguments), {"server_name": "ketch.cli"})
    configure("WARNING")
    since = None if arguments.since is None else time.time() - arguments.since
    if since is not None and not options.broker.capabilities.replay:
        others = ", ".join(Plugins().brokers_that("replay")) or "none that is installed"
        raise CapabilityError(f"broker {options.broker.name} can't look back; those that can: {others}")
    Terms(arguments.group).check(Topic(arguments.topic, Message), options.broker)
    asyncio.run(_tail(options, arguments.topic, arguments.group, arguments.count, since, show))
    return 0


async def _tail(
    options: Options,
    topic: str,
    group: str | None,
    count: int | None,
    since: float | None,
    show: Callable[[Message], str],
) -> None:
    async with connected(options) as broker, AsyncExitStack() as stack:
        subscription = await broker.subscribe(topic, group=group, since=since)
        stack.push_async_callback(subscription.close)
        print(f"Listening to {topic} by broker {broker.name} {broker.location}", file=sys.stderr)
        seen = 0
        while count is None or seen < count:
            for delivery in await subscription.receive():
                print(show(delivery.message), flush=True)
                await subscription.settle([(delivery, Outcome.DONE)])
                seen += 1
                if seen == count:
                    break
