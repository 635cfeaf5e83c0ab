"""Generated files on the disk: written where they differ, compared, made part of the package they lie in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

INIT = "__init__.py"

_PROJECT_FILES = ("pyproject.toml", "setup.py", "setup.cfg", "requirements.txt", ".git")


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
    """Return whether a folder's modules are imported as parts of a package rather than from a folder on `sys.path`.

    They are if it has an `__init__.py` or lies in a folder that does. If neither, they are unless it looks like the
    root of a project: the current folder, one called `src`, one with a project's files.
    """
    for place in (folder, *folder.parents):
        if (place / INIT).exists():
            return True
        if place != folder and place.exists():
            break
    whole = folder.resolve()
    return not (whole == Path.cwd() or whole.name == "src" or any((folder / name).exists() for name in _PROJECT_FILES))


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
