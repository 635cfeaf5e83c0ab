"""Generated files on the disk: written where they differ, compared, made part of the package they lie in."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

INIT = "__init__.py"


def write(files: Mapping[Path, bytes]) -> Iterator[Path]:
    """Write what differs and yield its path; what is right already keeps its time of change."""
    for file in differences(files):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(files[file])
        yield file


def differences(files: Mapping[Path, bytes]) -> dict[Path, str]:
    """Return which files are not on the disk as they should be, and why. An `__init__.py` may hold anything."""
    found = {}
    for file, content in sorted(files.items()):
        if not file.exists():
            found[file] = "missing"
        elif file.name != INIT and file.read_bytes() != content:
            found[file] = "differs"
    return found


def is_package(folder: Path) -> bool:
    """Return whether a folder's modules are imported as parts of a package: it is one, lies in one, or is new.

    A folder that existed before, outside of any package, is taken for one on `sys.path`, such as `src`.
    """
    for place in (folder, *folder.parents):
        if (place / INIT).exists():
            return True
        if place != folder and place.exists():
            break
    return folder.name.isidentifier() and not (folder.exists() and any(folder.iterdir()))


def packages(files: Iterable[Path], out: Path, *, package: bool) -> set[Path]:
    """Return the `__init__.py` that the files' folders lack: those in a package, and `out` itself if it is to be one.

    Elsewhere none is begun: a folder without one is a namespace package, and a `google/type/` generated into a folder
    on `sys.path` does not hide the installed `google/protobuf/`.
    """
    needed: set[Path] = set()
    for folder in {file.parent for file in files}:
        needed.update(place / INIT for place in _lacking(folder, out, package=package))
    return needed


def _lacking(folder: Path, out: Path, *, package: bool) -> list[Path]:
    plain: list[Path] = []
    for place in (folder, *folder.parents):
        if (place / INIT).exists():
            return plain
        if place.exists() and not place.is_relative_to(out):
            break
        plain.append(place)
    return [place for place in plain if package and place.is_relative_to(out)]
