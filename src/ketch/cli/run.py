"""ketch run: a service as a process, or as several that are watched over."""

from __future__ import annotations

import argparse
import sys
import traceback
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import settings
from ..errors import ConfigurationError
from ..logs import configure
from ..workers import worker
from ..workers.supervisor import Supervisor, Terms
from .output import positive, seconds

if TYPE_CHECKING:
    from ..service import Service

#: Seconds that workers get to stop: at least so many, and so many more than their grace period.
_PATIENCE, _MARGIN = 60.0, 10.0


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser("run", help="run a service", description=__doc__)
    add = parser.add_argument
    add("service", metavar="MODULE:SERVICE", help="such as shop_service:service")
    add("--app-dir", type=Path, default=Path(), metavar="DIR", help="where the module is (default: here)")
    add("--workers", "-w", type=positive, metavar="N", help="run N processes that share a port; restart those that die")
    add("--reload", "-r", action="store_true", help="replace the workers when a .py file changes (or on SIGHUP)")
    add(
        "--reload-dir",
        type=Path,
        action="append",
        metavar="DIR",
        help="watch this folder; repeatable (default: --app-dir)",
    )
    add("--start-timeout", type=seconds, default=60.0, metavar="S", help="kill a worker not ready by then (60)")
    add(
        "--hang-timeout",
        type=seconds,
        default=0.0,
        metavar="S",
        help="kill a worker whose event loop is blocked so long",
    )
    add("--metrics-address", default="", metavar="HOST:PORT", help="serve figures and health of all workers over HTTP")
    add("--supervised", help=argparse.SUPPRESS)  # what a supervisor says to its workers
    settings.add_flags(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run here, or in child processes where there is something to watch over."""
    if arguments.supervised is not None:
        return _work(arguments)
    if sys.platform == "win32" and (arguments.workers or arguments.reload):
        raise ConfigurationError("--workers and --reload need POSIX: on Windows run one process, without them")
    if arguments.workers is None and not arguments.reload:
        load(arguments.service, arguments.app_dir).run(arguments)
        return 0
    read = settings.read(arguments)  # a wrong setting is said once, here, not by every worker
    command = [sys.executable, "-m", "ketch", "run", arguments.service, "--app-dir", str(arguments.app_dir)]
    folders = (arguments.reload_dir or [arguments.app_dir]) if arguments.reload else []
    terms = Terms(
        count=arguments.workers or 1,
        patience=max(_PATIENCE, read["shutdown_grace"] + _MARGIN),
        start=arguments.start_timeout,
        hang=arguments.hang_timeout,
        folders=folders,
        metrics=arguments.metrics_address,
        runtime=read.runtime_directory,
    )
    return Supervisor([*command, *_flags(arguments)], terms).run()


def _work(arguments: argparse.Namespace) -> int:
    """Be one of the workers that a supervisor started."""
    descriptor, _, serial = arguments.supervised.partition(":")
    worker.prepare()
    service = load(arguments.service, arguments.app_dir)
    options = service.init(arguments)
    configure(options.log_level)
    return worker.run(service, options, int(descriptor), int(serial))


def load(name: str, folder: Path) -> Service:
    """Import the service called `module:attribute`.

    Raises:
        ConfigurationError: there is none of that name, or importing it failed.
    """
    from ..service import Service  # noqa: PLC0415 - `--help` needs none of it

    module_name, colon, attribute = name.partition(":")
    if not colon or not module_name or not attribute:
        raise ConfigurationError(f"{name!r} is no MODULE:SERVICE, such as shop_service:service")
    sys.path.insert(0, str(folder.resolve()))
    found = _import(module_name)
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, Service):
        what = "isn't there" if found is None else f"is a {type(found).__name__}, not a ketch Service"
        raise ConfigurationError(f"{name}: {attribute} {what}")
    return found


def _import(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            raise ConfigurationError(f"there is no module {error.name}; --app-dir says where to look") from error
        raise _broken(name) from error
    except Exception as error:
        raise _broken(name) from error


def _broken(name: str) -> ConfigurationError:
    # From the user's module on: how we came to import it helps nobody.
    kind, error, trace = sys.exc_info()
    frames = traceback.extract_tb(trace)
    own = [frame for frame in frames if "importlib" not in frame.filename and not frame.filename.startswith("<frozen")]
    lines = traceback.format_list(own[1:]) + traceback.format_exception_only(kind, error)
    return ConfigurationError(f"importing {name} failed:\n{''.join(lines).rstrip()}")


def _flags(arguments: argparse.Namespace) -> list[str]:
    flags = []
    for setting in settings.KNOWN:
        value = getattr(arguments, setting.name)
        if value is not None:
            flags += [f"{setting.flag}={value}"]
    return flags
