"""ketch workers: how the workers of `ketch run --workers` are, on this machine and of this user."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import msgspec

from .. import settings
from ..workers.console import ask_all
from .output import safe
from .services import columns

if TYPE_CHECKING:
    import argparse

    from ..workers.reports import Line, Status

_MEGA = 1024 * 1024
_HEADS = ("WORKER", "PID", "UP", "RESTARTS", "STATE", "CALLS", "ERRORS", "CALLS/S", "EVENTS", "EVENTS/S", "MEMORY")


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser("workers", help="how the workers of ketch run are", description=__doc__)
    parser.add_argument("name", nargs="?", help="only this service's")
    parser.add_argument("--json", action="store_true", help="one supervisor a line, with figures by method and topic")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Ask and print; exit code 1 if there are none, or one of them doesn't do its work."""
    runtime = settings.environment().get("XDG_RUNTIME_DIR", "")
    found = [status for status in ask_all(runtime) if arguments.name in (None, status.service)]
    if not found:
        print("ketch: no workers run here", file=sys.stderr)
        return 1
    for status in found:
        print(json.dumps(msgspec.to_builtins(status)) if arguments.json else _table(status))
    staying = [line for status in found for line in status.workers if line.state != "stopping"]
    return 0 if all(line.state == "serving" for line in staying) else 1


def _table(status: Status) -> str:
    where = ", ".join(status.addresses)
    head = f"{status.service or '?'} {status.version} at {where or '-'}"
    head += f", supervisor {status.pid}, up {_time(status.uptime)}"
    if status.reloads:
        head += f", {status.reloads} reload(s)"
    if status.failed:
        head += f", the last reload failed: the new workers {status.failed}"
    rows: list[tuple[str, ...]] = [_HEADS]
    rows += [_row(line) for line in status.workers]
    methods, topics = status.stats.methods, status.stats.topics
    rows.append((
        "all",
        "",
        "",
        str(sum(line.restarts for line in status.workers)),
        f"{status.serving} serving",
        str(sum(method.calls for method in methods)),
        str(sum(method.errors for method in methods)),
        f"{sum(line.call_rate for line in status.workers):.0f}",
        str(sum(topic.handled for topic in topics)),
        f"{sum(line.event_rate for line in status.workers):.0f}",
        f"{sum(line.memory for line in status.workers) / _MEGA:.0f} MB",
    ))  # fmt: skip
    reasons = [f"worker {line.number}: {line.trouble}" for line in status.workers if line.trouble]
    return "\n".join(map(safe, [head, *columns(rows).split("\n"), *reasons]))


def _row(line: Line) -> tuple[str, ...]:
    return (
        str(line.number),
        str(line.pid or "-"),
        _time(line.uptime) if line.pid else "-",
        str(line.restarts),
        line.state,
        str(line.calls),
        str(line.errors),
        f"{line.call_rate:.0f}",
        str(line.events),
        f"{line.event_rate:.0f}",
        f"{line.memory / _MEGA:.0f} MB",
    )


def _time(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"
