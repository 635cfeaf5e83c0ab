"""ketch dead: events that could not be handled: list them, look at one, publish them again, drop them.

They wait in a topic of their own, `ketch.dead`, at brokers that redeliver. Those that are only looked at stay.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import TYPE_CHECKING, Any

from .. import settings
from ..broker import DEAD_LETTERS
from ..errors import CapabilityError, ConfigurationError, NotFound
from ..logs import configure
from ..options import Options, build
from ..plugins import Plugins
from .connection import connected
from .letters import MOST, Letter, Letters, chosen
from .output import safe
from .services import columns
from .show import Show

if TYPE_CHECKING:
    import argparse
    from collections.abc import Awaitable, Callable

#: Letters between two words on how far it is.
_PROGRESS = 1000


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the subcommand and its own subcommands."""
    parser = subparsers.add_parser("dead", help="events that could not be handled", description=__doc__)
    actions = parser.add_subparsers(required=True, metavar="list|show|replay|drop")
    for name, text in (
        ("list", "list them"),
        ("show", "print events with their stories"),
        ("replay", "publish events again, each for the group that gave it up"),
        ("drop", "forget events"),
    ):
        action = actions.add_parser(name, help=text, description=text)
        _add_arguments(action, name)
        settings.add_flags(action)
        action.set_defaults(run=run, action=name)


def _add_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    add = parser.add_argument
    if name != "list":
        add("ids", nargs="*", metavar="ID", help="the events, as `ketch dead list` names them")
    if name in ("replay", "drop"):
        add("--all", action="store_true", help="all of them, or all of --topic and --group")
    if name in ("list", "show"):
        add("--json", action="store_true", help="one JSON object a line")
    if name == "show":
        add("--type", default="", metavar="MODULE:CLASS", help="a protobuf class to decode bodies with")
    add("--topic", help="only those published to this topic")
    add("--group", help="only those that this group gave up")
    add("--letters", default=DEAD_LETTERS, metavar="TOPIC", help="where they are kept (default: %(default)s)")
    add("--quiet", type=float, default=1.0, metavar="SECONDS", help="how long to wait for more (default: %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Do what was asked for."""
    action = arguments.action
    ids = getattr(arguments, "ids", [])
    if action in ("replay", "drop") and bool(ids) == arguments.all:
        raise ConfigurationError(f"ketch dead {action}: name events by their ids, or give --all")
    options = build(settings.read(arguments), {"server_name": "ketch.cli"})
    if not options.broker.capabilities.redelivers:
        others = ", ".join(Plugins().brokers_that("redelivers"))
        raise CapabilityError(f"broker {options.broker.name} keeps no dead letters; those that do: {others}")
    configure("WARNING")
    return asyncio.run(_ACTIONS[action](options, arguments))


async def _each(
    options: Options, arguments: argparse.Namespace, act: Callable[[Letters, Letter], Awaitable[None]] | None
) -> list[Letter]:
    """Go through the letters asked for; return them."""
    ids = getattr(arguments, "ids", [])
    found: list[Letter] = []
    seen = 0
    async with connected(options) as broker, Letters(broker, arguments.letters, arguments.quiet) as letters:
        async for letter in letters.read():
            seen += 1
            if act is not None and chosen(letter, ids, arguments.topic, arguments.group):
                await act(letters, letter)
                found.append(letter)
            else:
                letters.keep(letter)
                if chosen(letter, ids, arguments.topic, arguments.group):
                    found.append(letter)
            if seen % _PROGRESS == 0:
                print(f"{seen} dead letters so far …", file=sys.stderr)
    if seen == MOST:
        print(f"There may be more than these {MOST}; look again.", file=sys.stderr)
    missing = set(ids) - {letter.id for letter in found}
    if missing:
        raise NotFound(
            f"no dead letter {', '.join(sorted(missing))} at {options.broker.name}, or it is in hand elsewhere"
        )
    return found


async def _list(options: Options, arguments: argparse.Namespace) -> int:
    found = await _each(options, arguments, None)
    if arguments.json:
        for letter in found:
            print(json.dumps(_record(letter)))
    elif found:
        rows = [
            (letter.id, letter.said.time, letter.said.topic, letter.said.group or "-", str(letter.said.attempts),
             letter.said.reason)
            for letter in found
        ]  # fmt: skip
        print(columns([("ID", "GIVEN UP", "TOPIC", "GROUP", "TRIES", "REASON"), *rows]))
    else:
        print(f"No dead letters at {options.broker.name} {options.broker.location}")
    return 0


def _record(letter: Letter) -> dict[str, object]:
    said = letter.said
    return {
        "id": letter.id,
        "topic": said.topic,
        "group": said.group,
        "handler": said.handler,
        "reason": said.reason,
        "error": said.error,
        "attempts": said.attempts,
        "time": said.time,
        "trace": said.trace,
    }


async def _show(options: Options, arguments: argparse.Namespace) -> int:
    show = Show(arguments.type, as_json=arguments.json)
    for letter in await _each(options, arguments, None):
        event = letter.said.replay(letter.message)
        if arguments.json:
            print(json.dumps({**_record(letter), "event": json.loads(show(event))}))
            continue
        said = letter.said
        print(show(event))
        print(f"  given up by {safe(said.handler)} of group {safe(said.group) or '-'} at {safe(said.time)}")
        print(f"  after {said.attempts} tries: {safe(said.reason)}")
        for line in said.trace.rstrip().split("\n"):
            print(f"    {safe(line)}")
    return 0


async def _replay(options: Options, arguments: argparse.Namespace) -> int:
    found = await _each(options, arguments, Letters.replay)
    print(f"Published {_events(found)} again")
    return 0


async def _drop(options: Options, arguments: argparse.Namespace) -> int:
    found = await _each(options, arguments, Letters.drop)
    print(f"Dropped {_events(found)}")
    return 0


def _events(found: list[Letter]) -> str:
    return "1 event" if len(found) == 1 else f"{len(found)} events"


_ACTIONS = {"list": _list, "show": _show, "replay": _replay, "drop": _drop}
