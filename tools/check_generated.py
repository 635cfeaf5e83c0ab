"""Fail when generated files are not what their .proto files say. Run by `make check`; mended by `make generate`.

Generates in memory and compares; with `--write` it writes instead. Trees that are not there yet are passed over.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from ketch.cli.generate import generate
from ketch.cli.generated import differences, write

ROOT = Path(__file__).resolve().parents[1]

#: Folder of .proto files, folder above what is generated from them.
TREES = [
    ("examples/shippy/proto", "examples/shippy/src"),
    ("benchmarks/proto", "benchmarks"),
    ("proto", "src"),
]

SUFFIXES = ("_pb2.py", "_pb2.pyi", "_ketch.py")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write what is stale instead of failing")
    arguments = parser.parse_args()
    os.chdir(ROOT)  # so that messages name files as everybody calls them
    wrong: dict[Path, str] = {}
    for protos, out in TREES:
        if Path(protos).is_dir():
            files = generate([Path(protos)], [], Path(out))
            if arguments.write:
                sys.stdout.writelines(f"{file}\n" for file in write(files))
            wrong |= differences(files) | left_over(files)
    for file, reason in wrong.items():
        print(f"{file}: {reason}", file=sys.stderr)
    if wrong and not arguments.write:
        print("Generated files are stale: python tools/check_generated.py --write", file=sys.stderr)
    return 1 if wrong else 0


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
