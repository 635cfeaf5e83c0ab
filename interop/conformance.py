"""Run connectrpc.com/conformance against our server and our client: the widest suite of gRPC's corners there is.

    python interop/conformance.py [--write]

Its reference programs are the Connect authors' and grpc-go's. The exit code is 1 if any case failed. `--write` puts the
result into docs/interop.md.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from languages import PAGE
from peers import KEPT, go_program, need

from ketch.cli.generate import generate
from ketch.cli.generated import write as write_files

HERE: Final = Path(__file__).resolve().parent
MODULE: Final = "connectrpc.com/conformance"
VERSION: Final = "v1.0.7"
BEGIN: Final = "<!-- conformance: written by interop/conformance.py --write -->"
END: Final = "<!-- end of conformance -->"
#: Seconds for all cases of one side.
LIMIT: Final = 600


def main() -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the result into docs/interop.md")
    arguments = parser.parse_args()
    suite = go_program("connectconformance", f"{MODULE}/cmd/connectconformance@{VERSION}")
    generate_contract()
    lines = ["| ketch as | cases | passed |", "| --- | --- | --- |"]
    codes = []
    for side in ("server", "client"):
        command = (str(suite), "--mode", side, "--conf", str(HERE / f"conformance-{side}.yaml"), "--")
        program = (sys.executable, str(HERE / f"conformance_{side}.py"))
        done = subprocess.run((*command, *program), capture_output=True, text=True, timeout=LIMIT, check=False)
        codes.append(done.returncode)
        said = done.stdout + done.stderr
        found = re.search(r"(\d+) passed, (\d+) failed", said)
        if done.returncode or found is None:
            print(said[-20_000:])
        passed, failed = map(int, found.groups()) if found else (0, 0)
        lines.append(f"| {side} | {passed + failed} | {passed} |")
    table = "\n".join(lines) + "\n"
    print(table)
    if arguments.write:
        head, rest = PAGE.read_text().split(BEGIN)
        PAGE.write_text(f"{head}{BEGIN}\n\n{table}\n{END}{rest.split(END, 1)[1]}")
    return 1 if any(codes) else 0


def generate_contract() -> None:
    """Generate Python from the suite's .proto files, which are in its Go module."""
    need("go")
    command = ("go", "mod", "download", "-json", f"{MODULE}@{VERSION}")
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r'"Dir": "(.*)"', said)
    assert found is not None, said
    protos = Path(found[1]) / "proto"
    for file in write_files(generate([protos], [protos], KEPT / "conformance", package=False)):
        print(f"generated {file.name}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
