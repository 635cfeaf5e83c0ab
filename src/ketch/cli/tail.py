"""ketch tail: a topic's events as they come, until Ctrl-C."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from .. import settings
from ..logs import configure
from ..options import Options, build
from .output import positive
from .show import Show

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from ..message import Message


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser("tail", help="print a topic's events as they come", description=__doc__)
    add = parser.add_argument
    add("topic")
    add("--group", help="share the events with a group instead of seeing them all: takes them away from its members")
    add("--count", type=positive, help="end after so many events")
    add("--type", default="", metavar="MODULE:CLASS", help="a protobuf class to decode bodies with")
    add("--json", action="store_true", help="one JSON object a line")
    settings.add_flags(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print until interrupted, or until `--count` is reached."""
    show = Show(arguments.type, as_json=arguments.json)
    options = build(settings.read(arguments), {"server_name": "ketch.cli"})
    configure("WARNING")
    asyncio.run(_tail(options, arguments.topic, arguments.group, arguments.count, show))
    return 0


async def _tail(
    options: Options, topic: str, group: str | None, count: int | None, show: Callable[[Message], str]
) -> None:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(options.registry)
        await stack.enter_async_context(options.transport)
        stack.push_async_callback(options.broker.close)
        await options.broker.open(options.site())
        subscription = await options.broker.subscribe(topic, group=group)
        stack.push_async_callback(subscription.close)
        print(f"Listening to {topic} by broker {options.broker.name} {options.broker.location}", file=sys.stderr)
        seen = 0
        while count is None or seen < count:
            for delivery in await subscription.receive():
                print(show(delivery.message), flush=True)
                seen += 1
                if seen == count:
                    break
