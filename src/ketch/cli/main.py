"""The `ketch` command: one subcommand a file, imported when it is used."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

from ..errors import ConfigurationError, KetchError, StatusError
from ..settings import arguments as own_arguments
from .output import safe

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Each is a module here, with `add_parser(subparsers)`.
COMMANDS = {
    "run": "run a service, with --workers and --reload",
    "workers": "how the workers of ketch run are",
    "call": "call a method and print the reply",
    "publish": "publish an event",
    "tail": "print a topic's events as they come",
    "dead": "events that could not be handled: list, show, replay, drop",
    "services": "list the services that run",
    "health": "ask services whether they do their work",
    "topics": "list the topics that are subscribed to",
    "generate": "write typed classes from .proto files",
    "plugins": "list the brokers, registries, transports and codecs installed",
    "config": "show every setting, its value and where it comes from",
}

#: The exit code of a program that was interrupted, as shells have it: 128 + SIGINT.
_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 1 when it failed, 2 when it was called wrongly."""
    arguments = list(own_arguments() if argv is None else argv)
    command = next((word for word in arguments if word in COMMANDS), None)
    namespace = _parser(command).parse_args(arguments)
    try:
        return int(namespace.run(namespace))
    except StatusError as error:
        return _fail(f"{error.code.name}: {error.message}", 1)
    except ConfigurationError as error:
        return _fail(str(error), 2)
    except KetchError as error:
        return _fail(str(error), 1)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has gone; Python would complain at exit
        return 1


def _parser(command: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ketch", description="Event-driven microservices.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"ketch {version('ketch')}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, text in COMMANDS.items():
        if name == command:
            import_module(f".{name}", __package__).add_parser(subparsers)
        else:
            subparsers.add_parser(name, help=text)
    return parser


def _fail(text: str, code: int) -> int:
    # What a peer says is part of it, so it must not steer the terminal; a trace of the user's own has several lines.
    print("\n".join(map(safe, f"ketch: {text}".split("\n"))), file=sys.stderr)
    return code
