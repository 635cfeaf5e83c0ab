# ruff: noqa: INP001 - a script is no part of a package
"""Fail when generated files are not what their .proto files say. Run by `make check`; mended by `--write`.

Generates in memory and compares; Trees that are not there yet are passed over.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet

from ketch.cli.compiler import describe
from ketch.cli.generate import generate
from ketch.cli.generated import INIT, differences, write

ROOT = Path(__file__).resolve().parents[1]

MESSAGES = ("_pb2.py", "_pb2.pyi")
SUFFIXES = (*MESSAGES, "_ketch.py")

#: Source, folder that imports start from, folder to write to (on `sys.path`, all of them), what of it is wanted.
TREES = [
    ("examples/shippy/proto", "examples/shippy/proto", "examples/shippy/src", SUFFIXES),
    ("benchmarks/proto", "benchmarks/proto", "benchmarks/proto", SUFFIXES),
    ("interop/contract", "interop", "interop", SUFFIXES),
    ("src/ketch/brokers/direct/direct.proto", "src", "src", MESSAGES),  # peer.py calls its one method without a stub
    ("src/ketch/registries/etcd/etcd.proto", "src", "src", MESSAGES),  # link.py calls etcd's methods by their paths
]

#: The folder of the standard contracts, and the file that holds them compiled.
STANDARD = Path("src/ketch/standard")
COMPILED = STANDARD / "contracts.binpb"


def main() -> int:
    """Return the exit code: 1 if something is stale."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write what is stale instead of failing")
    arguments = parser.parse_args()
    os.chdir(ROOT)  # so that messages name files as everybody calls them
    wrong: dict[Path, str] = {}
    for source, root, out, wanted in TREES:
        if Path(source).exists():
            made = generate([Path(source)], [Path(root)], Path(out), package=False)
            files = {file: content for file, content in made.items() if file.name.endswith((INIT, *wanted))}
            if arguments.write:
                sys.stdout.writelines(f"{file}\n" for file in write(files))
            wrong |= differences(files) | left_over(files)
    compiled = {COMPILED: compiled_contracts()}
    if arguments.write:
        sys.stdout.writelines(f"{file}\n" for file in write(compiled))
    wrong |= differences(compiled)
    for file, reason in wrong.items():
        sys.stderr.write(f"{file}: {reason}\n")
    if wrong and not arguments.write:
        sys.stderr.write("Generated files are stale: python tools/check_generated.py --write\n")
    return 1 if wrong else 0


def compiled_contracts() -> bytes:
    """Return the standard contracts, compiled, without their comments."""
    described = describe(sorted(STANDARD.rglob("*.proto")), [STANDARD])
    for file in described.file:
        file.ClearField("source_code_info")
    return FileDescriptorSet(file=described.file).SerializeToString(deterministic=True)


def left_over(files: dict[Path, bytes]) -> dict[Path, str]:
    """Return generated files, beside those that belong there, whose .proto file or services are gone."""
    beside = {file for folder in {file.parent for file in files} for file in folder.iterdir() if folder.is_dir()}
    return {
        file: "left over; no .proto file makes it any more"
        for file in sorted(beside - set(files))
        if file.name.endswith(SUFFIXES)
    }


if __name__ == "__main__":
    sys.exit(main())
