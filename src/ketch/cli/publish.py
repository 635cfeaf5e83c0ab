"""ketch publish: one event, or several of a kind, for whoever subscribed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from .. import settings
from ..codec import JSON
from ..errors import ConfigurationError
from ..message import KEY, Message, event_headers, own_metadata, stamp
from ..options import Options, build
from ..topic import Topic, check_delay, checked_key
from .connection import connected
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
    add("--key", default="", help="events of one key are handled in order")
    add("--delay", type=float, default=0.0, metavar="SECONDS", help="deliver it so much later, where the broker can")
    add("--count", type=positive, default=1, help="how many times, each as an event of its own (default: 1)")
    settings.add_flags(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Publish, and return when the broker has it."""
    if Topic(arguments.topic, dict).is_pattern:  # it refuses what is no topic's name
        raise ConfigurationError(f"{arguments.topic} is a pattern of topics, which can only be subscribed to")
    payload = body(arguments.body)
    if arguments.content_type == JSON:
        checked_json(payload)
    metadata = dict(own_metadata(pairs(arguments.metadata)))
    shared = event_headers(
        source="ketch.cli", type=arguments.type or arguments.topic, content_type=arguments.content_type
    )
    options = build(settings.read(arguments), {"server_name": "ketch.cli"})
    headers = {**shared, **metadata}
    if arguments.key:
        headers[KEY] = checked_key(arguments.key)
    asyncio.run(_publish(options, arguments.topic, headers, payload, arguments.count, arguments.delay))
    events = "1 event" if arguments.count == 1 else f"{arguments.count} events"
    print(f"Published {events} to {arguments.topic} by broker {options.broker.name}")
    return 0


async def _publish(
    options: Options, topic: str, shared: dict[str, str], payload: bytes, count: int, delay: float
) -> None:
    async with connected(options) as broker:
        check_delay(broker, topic, delay)
        for _ in range(count):
            await broker.publish(Message(topic, stamp(shared), payload), delay=delay)
