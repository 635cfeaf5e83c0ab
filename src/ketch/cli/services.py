"""ketch services: who runs, where, and what they serve."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from .. import settings
from ..options import build
from .output import safe

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from ..registry import Instance, Registry

#: Where the broker `direct` keeps its subscriptions; `ketch topics` lists those.
TOPICS = "topic:"


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser("services", help="list the services that run", description=__doc__)
    parser.add_argument("name", nargs="?", help="only this service, or whoever serves this contract")
    parser.add_argument("--watch", action="store_true", help="go on and print each change")
    parser.add_argument("--json", action="store_true", help="one JSON list for each snapshot")
    settings.add_flags(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print once, or until interrupted."""
    options = build(settings.read(arguments), {})
    asyncio.run(_list(options.registry, arguments.name, watch=arguments.watch, as_json=arguments.json))
    return 0


async def _list(registry: Registry, name: str | None, *, watch: bool, as_json: bool) -> None:
    async with registry, aclosing(registry.watch(name)) as snapshots:
        async for snapshot in snapshots:
            instances = [instance for instance in snapshot if not instance.service.startswith(TOPICS)]
            print(_json(instances) if as_json else _table(instances, registry), flush=True)
            if not watch:
                return


def _json(instances: Sequence[Instance]) -> str:
    return json.dumps(
        [
            {
                "service": instance.service,
                "id": instance.id,
                "version": instance.version,
                "address": instance.address,
                "contracts": list(instance.contracts),
                "metadata": dict(instance.metadata),
            }
            for instance in instances
        ]
    )


def _table(instances: Sequence[Instance], registry: Registry) -> str:
    if not instances:
        return f"No service in registry {registry.name} {registry.location}"
    rows = [("SERVICE", "VERSION", "ADDRESS", "CONTRACTS")]
    rows += [(i.service, i.version, i.address, ", ".join(i.contracts) or "-") for i in instances]
    return columns(rows)


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as aligned columns."""
    safe_rows = [[safe(cell) for cell in row] for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(*safe_rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in safe_rows)
    return "\n".join(line.rstrip() for line in lines)
