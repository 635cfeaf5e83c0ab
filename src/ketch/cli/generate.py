"""`ketch generate`: from .proto files to messages, servicers and stubs that import from wherever they are put."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigurationError
from .compiler import compile_protos
from .generated import differences, is_package, packages, write
from .relative import relative_imports
from .sources import find_protos, proto_name, root_of
from .stubs import complete_stubs

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_DESCRIPTION = """\
Writes for each .proto file, at its path beneath the proto path:
  *_pb2.py, *_pb2.pyi   the messages, as protoc writes them
  *_ketch.py            a servicer to implement and a stub to call, for each service
The files import each other relatively, so --out may lie inside a package."""


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the subcommand to the `ketch` command."""
    _describe(
        subparsers.add_parser(
            "generate",
            help="write Python for .proto files",
            description=_DESCRIPTION,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
    )


def _describe(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("sources", nargs="+", type=Path, metavar="FILE_OR_DIR", help="a .proto file, or a folder of them")
    add("--out", type=Path, metavar="DIR", help="where to write (default: beside the .proto files)")
    add(
        *("-I", "--proto-path"),
        action="append",
        type=Path,
        default=[],
        metavar="DIR",
        help="a folder that imports start from; repeatable (default: a DIR named itself, and for a FILE "
        "the folder above those that are named like its package)",
    )
    add(
        "--package",
        action=argparse.BooleanOptionalAction,
        help="whether --out is a package, or part of one, or else a folder on sys.path "
        "(default: a package, unless it is the current folder, is called src or holds a pyproject.toml)",
    )
    add("--check", action="store_true", help="write nothing; exit 1 and name the files that are missing or differ")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Generate or check; return the exit code: 0, or 1 after saying what is wrong."""
    try:
        files = generate(arguments.sources, arguments.proto_path, arguments.out, package=arguments.package)
        if arguments.check:
            return _check(files)
        for file in write(files):
            print(file)
    except (ConfigurationError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def generate(
    sources: Iterable[Path], proto_paths: Iterable[Path] = (), out: Path | None = None, *, package: bool | None = None
) -> dict[Path, bytes]:
    """Return what belongs on the disk, by path: generated files, and an empty `__init__.py` where a package lacks one.

    Args:
        sources: .proto files and folders of them.
        proto_paths: the folders that imports start from; none: seen from the sources.
        out: the folder above everything that is returned; None: the proto path, so that files lie beside their source.
        package: whether `out` is part of a package, or on `sys.path`; None to see from what is there.

    Raises:
        ConfigurationError: a source is missing or protoc refused it: its own words, with file and line.
        MissingExtra: there is no protoc.
    """
    sources = list(sources)
    found = find_protos(sources)
    roots = list(dict.fromkeys(proto_paths)) or list(dict.fromkeys(map(root_of, sources)))
    protos = {file: proto_name(file, roots) for file in found}
    out = _beside(roots) if out is None else out
    package = is_package(out) if package is None else package
    written = complete_stubs(relative_imports(compile_protos(protos, roots), package=package))
    files = {out / name: content for name, content in written.items()}
    return files | dict.fromkeys(packages(files, out, package=package), b"")


def _beside(roots: Sequence[Path]) -> Path:
    if len(roots) > 1:
        raise ConfigurationError(
            f"there are several proto paths ({', '.join(map(str, roots))}); say where to: --out DIR"
        )
    return roots[0]


def _check(files: dict[Path, bytes]) -> int:
    wrong = differences(files)
    for file, reason in wrong.items():
        print(f"{file}: {reason}", file=sys.stderr)
    if wrong:
        print("Generated files are stale; run the same command without --check.", file=sys.stderr)
    return 1 if wrong else 0


def main() -> int:
    """Run as `python -m ketch.cli.generate`."""
    parser = argparse.ArgumentParser(
        prog="ketch generate", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    _describe(parser)
    return run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
