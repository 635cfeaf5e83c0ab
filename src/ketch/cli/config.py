"""ketch config: every setting, its value here and now, and where that comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .. import settings
from ..errors import ConfigurationError
from ..url import Url
from .services import columns

if TYPE_CHECKING:
    import argparse


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser("config", help="show every setting", description=__doc__)
    settings.add_flags(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print one line for each setting; passwords are left out."""
    read = settings.read(arguments)
    rows = [("SETTING", "VALUE", "FROM")]
    rows += [(item.name, _shown(read[item.name]), read.sources[item.name]) for item in settings.KNOWN]
    print(columns(rows))
    return 0


def _shown(value: object) -> str:
    text = str(value)
    if "://" not in text:
        return text or "-"
    try:
        return str(Url.parse(text))
    except ConfigurationError:
        return "not a URL"
