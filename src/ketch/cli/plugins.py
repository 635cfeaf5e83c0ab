"""ketch plugins: what is installed, and what each broker can do."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ..errors import MissingExtra
from ..plugins import KINDS, Plugins
from .services import columns

if TYPE_CHECKING:
    import argparse


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser("plugins", help="list what is installed", description=__doc__)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:  # noqa: ARG001 - the command takes none
    """Print one line for each plugin."""
    plugins = Plugins()
    rows = [("KIND", "NAME", "PACKAGE", "CAN")]
    rows += [
        (kind.lower(), name, plugins.package(kind, name), _can(plugins, kind, name))
        for kind in KINDS
        for name in plugins.names(kind)
    ]
    print(columns(rows))
    return 0


def _can(plugins: Plugins, kind: str, name: str) -> str:
    try:
        plugin = plugins.load(kind, name)
    except MissingExtra as error:
        return f"not usable: {error}"
    if kind != "Broker":
        return ""
    capabilities = asdict(plugin.capabilities)
    return ", ".join(name if value is True else f"{name}={value}" for name, value in capabilities.items() if value)
