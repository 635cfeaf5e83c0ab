"""ketch topics: what is subscribed to by the broker `direct`, which keeps its subscriptions in the registry.

Other brokers keep them to themselves; ask their own tools.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from .. import settings
from ..options import build
from .services import TOPICS, columns

if TYPE_CHECKING:
    import argparse

    from ..registry import Instance, Registry


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser("topics", help="list the topics that are subscribed to", description=__doc__)
    parser.add_argument("--json", action="store_true", help="a JSON list")
    settings.add_flags(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the subscriptions."""
    options = build(settings.read(arguments), {})
    subscriptions = asyncio.run(_read(options.registry))
    rows = [
        (i.service.removeprefix(TOPICS), i.metadata.get("group", "-"), i.metadata.get("service", "-"), i.address)
        for i in subscriptions
    ]
    if arguments.json:
        names = ("topic", "group", "service", "address")
        print(json.dumps([dict(zip(names, row, strict=True)) for row in rows]))
    elif rows:
        print(columns([("TOPIC", "GROUP", "SERVICE", "ADDRESS"), *rows]))
    else:
        print(f"Nobody subscribes by the broker direct in registry {options.registry.name} {options.registry.location}")
    return 0


async def _read(registry: Registry) -> list[Instance]:
    async with registry, aclosing(registry.watch()) as snapshots:
        snapshot = await anext(snapshots)
    return [instance for instance in snapshot if instance.service.startswith(TOPICS)]
