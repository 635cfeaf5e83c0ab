"""Which .proto files are meant, and what protoc calls them: their paths beneath a folder that imports start from."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ..errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

_PACKAGE = re.compile(r"^\s*package\s+([\w.]+)\s*;", re.MULTILINE)


def find_protos(sources: Iterable[Path]) -> list[Path]:
    """Return the files named and those in the folders named, in order.

    Raises:
        ConfigurationError: there is no such file or folder, or nothing in it.
    """
    found: set[Path] = set()
    for source in sources:
        if not source.exists():
            raise ConfigurationError(f"{source}: no such file or folder")
        protos = [source] if source.is_file() else list(source.rglob("*.proto"))
        if not protos:
            raise ConfigurationError(f"{source}: no .proto file in there")
        found.update(protos)
    return sorted(found)


def root_of(source: Path) -> Path:
    """Return where imports start, unless told: a folder itself; for a file, above folders named like its package."""
    if source.is_dir():
        return source
    package = _PACKAGE.search(source.read_text(encoding="utf-8", errors="replace"))
    parts = package[1].split(".") if package else []
    folders = source.parent.parts
    if parts and list(folders[-len(parts) :]) == parts:
        return source.parents[len(parts)]
    return source.parent


def proto_name(file: Path, roots: Sequence[Path]) -> str:
    """Return a file's path beneath the first root that it lies in.

    Raises:
        ConfigurationError: it lies in none.
    """
    for root in roots:
        if file.is_relative_to(root):
            return file.relative_to(root).as_posix()
    listed = ", ".join(map(str, roots))
    raise ConfigurationError(f"{file} lies in no proto path ({listed}); name its folder: --proto-path {root_of(file)}")
