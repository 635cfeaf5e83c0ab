"""Imports among generated files, made relative.

protoc's Python imports as if the output folder were on `sys.path` (protocolbuffers/protobuf#1491). The lines it writes
for that are few and fixed; each has one pattern here. What was not generated along, such as `google.protobuf`, stays.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import takewhile
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

#: `from a.b import c_pb2 …`, `from a.b.c_pb2 import …` (import public), `import c_pb2 …` (a file at the root).
_FROM = re.compile(r"^from (?P<package>[\w.]+) import (?P<name>[\w*]+)", re.MULTILINE)
_IMPORT = re.compile(r"^import (?P<module>\w+_pb2)(?P<alias> as \w+)?$", re.MULTILINE)

#: Where a folder is called like a keyword of Python's.
_IMPORTLIB = re.compile(r"""\bimportlib\.import_module\((?P<quote>['"])(?P<module>[\w.]+)(?P=quote)\)""")


def relative_imports(files: Mapping[str, bytes], *, package: bool) -> dict[str, bytes]:
    """Return the files, by their paths beneath the output folder, with the imports among them relative.

    Without `package` the output folder is on `sys.path` itself: imports that lead over it stay absolute.
    """
    modules = {_module(name) for name in files}
    return {
        name: _rewritten(content.decode(), _Importer(_module(name), modules, package)).encode()
        for name, content in files.items()
    }


def _module(name: str) -> str:
    return ".".join(PurePosixPath(name).with_suffix("").parts)


@dataclass(frozen=True)
class _Importer:
    """A generated module that imports others."""

    module: str
    generated: set[str]
    package: bool

    def relative(self, module: str) -> tuple[str, str] | None:
        """Return how `module` is found from here, `("..common.", "money_pb2")`, or None to leave an import alone."""
        *target, name = module.split(".")
        here = self.module.split(".")[:-1]
        shared = len(list(takewhile(lambda pair: pair[0] == pair[1], zip(target, here, strict=False))))
        if module not in self.generated or not (shared or self.package):
            return None
        return "." * (len(here) - shared + 1) + ".".join(target[shared:]), name


def _rewritten(text: str, importer: _Importer) -> str:
    def from_(found: re.Match[str]) -> str:
        package, name = found["package"], found["name"]
        if place := importer.relative(f"{package}.{name}"):
            return f"from {place[0]} import {name}"
        if place := importer.relative(package):
            return f"from {_joined(*place)} import {name}"
        return found[0]

    def import_(found: re.Match[str]) -> str:
        place = importer.relative(found["module"])
        return f"from {place[0]} import {place[1]}{found['alias'] or ''}" if place else found[0]

    def importlib_(found: re.Match[str]) -> str:
        place, quote = importer.relative(found["module"]), found["quote"]
        return f"importlib.import_module({quote}{_joined(*place)}{quote}, __package__)" if place else found[0]

    return _IMPORTLIB.sub(importlib_, _IMPORT.sub(import_, _FROM.sub(from_, text)))


def _joined(folder: str, name: str) -> str:
    return folder + name if folder.endswith(".") else f"{folder}.{name}"
