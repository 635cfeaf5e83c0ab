"""Run h2spec, the HTTP/2 conformance tool, against a ketch server; every case has to pass, in strict mode.

    python interop/h2spec.py [--seconds 3]

It is built with Go, once, into .interop/bin.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import re
import shutil
import sys
from pathlib import Path

from ketch.transport import Request, Route
from ketch.transports.grpc import GrpcTransport

MODULE = "github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible"
BIN = Path(__file__).resolve().parents[1] / ".interop" / "bin"
#: Seconds for building the tool, and for all of its cases.
BUILD, RUN = 300, 300


async def echo(request: Request) -> bytes:
    """Answer with what was sent."""
    return request.body


async def build() -> Path:
    """Return the tool, built if it isn't there yet."""
    tool = BIN / "h2spec"
    if not tool.exists():
        go = shutil.which("go")
        if go is None:
            sys.exit("h2spec is built with Go, which isn't installed here")
        print("building h2spec …", flush=True)
        process = await asyncio.create_subprocess_exec(go, "install", MODULE, env={**os.environ, "GOBIN": str(BIN)})
        if await asyncio.wait_for(process.wait(), BUILD):
            sys.exit("h2spec could not be built")
    return tool


async def main(seconds: int) -> int:
    """Run it and print what failed; return the exit code."""
    logging.getLogger("ketch").setLevel(logging.ERROR)  # each case is a peer that breaks the rules
    tool = await build()
    listener = await GrpcTransport().listen("127.0.0.1:0", {"/interop.Echo/Echo": Route(unary=echo)})
    host, port = listener.address.split(":")
    process = await asyncio.create_subprocess_exec(
        *(str(tool), "-S", "-h", host, "-p", port, "-o", str(seconds)), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await asyncio.wait_for(process.communicate(), RUN)
    await listener.stop(0)
    said = output.decode()
    (total,) = re.findall(r"\d+ tests, \d+ passed, \d+ skipped, \d+ failed", said)
    clean = total.endswith(" 0 skipped, 0 failed")
    print(f"h2spec, strict: {total}" if clean else said)
    return 0 if clean and not process.returncode else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=3, help="how long a case may wait for an answer")
    sys.exit(asyncio.run(main(parser.parse_args().seconds)))
