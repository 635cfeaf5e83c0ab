"""ketch publish: one event, or several of a kind, for whoever subscribed."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from .. import settings
from ..codec import JSON
from ..message import Message, event_headers, own_metadata, stamp
from ..options import Options, build
from ..topic import Topic
from .output import body, checked_json, pairs, positive

if TYPE_CHECKING:
    import argparse


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser("publish", help="publish an event", description=__doc__)
    add = parser.add_argument
    add("topic")
    add("body", metavar="JSON", help="the payload; - reads standard input")
    add("--content-type", default=JSON, help="what the body is (default: %(default)s)")
    add("--type", default="", help="the event's ce-type, such as shippy.user.v1.User (default: the topic)")
    add("--metadata", action="append", default=[], metavar="NAME=VALUE", help="send along; repeatable")
    add("--count", type=positive, default=1, help="how many times, each as an event of its own (default: 1)")
    settings.add_flags(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Publish, and return when the broker has it."""
    Topic(arguments.topic, dict)  # refuses what is no topic's name
    payload = body(arguments.body)
    if arguments.content_type == JSON:
        checked_json(payload)
    metadata = dict(own_metadata(pairs(arguments.metadata)))
    shared = event_headers(
        source="ketch.cli", type=arguments.type or arguments.topic, content_type=arguments.content_type
    )
    options = build(settings.read(arguments), {"server_name": "ketch.cli"})
    asyncio.run(_publish(options, arguments.topic, {**shared, **metadata}, payload, arguments.count))
    events = "1 event" if arguments.count == 1 else f"{arguments.count} events"
    print(f"Published {events} to {arguments.topic} by broker {options.broker.name}")
    return 0


async def _publish(options: Options, topic: str, shared: dict[str, str], payload: bytes, count: int) -> None:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(options.registry)
        await stack.enter_async_context(options.transport)
        stack.push_async_callback(options.broker.close)
        await options.broker.open(options.site())
        for _ in range(count):
            await options.broker.publish(Message(topic, stamp(shared), payload))
