"""An idle service: seconds from the start of its process to its registration, and its memory once it is up.

    python benchmarks/startup.py [--rounds 5]

Beside it, in the same run: an interpreter that does nothing, one that imports grpc.aio, and one that runs an empty
grpc.aio server, the least that a Python team has today.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

KETCH = """
from ketch import Service
service = Service("idle")

@service.lifespan
async def up():
    import asyncio
    async def report():
        while not service.address:
            await asyncio.sleep(0.001)
        print("up", flush=True)
    task = asyncio.create_task(report())
    yield
    await task

service.run()
"""
GRPC_AIO = """
import asyncio, grpc.aio
async def main():
    server = grpc.aio.server()
    server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print("up", flush=True)
    await server.wait_for_termination()
asyncio.run(main())
"""
BARE = "import time; print('up', flush=True); time.sleep(60)"


def measure(program: str, environ: dict[str, str]) -> tuple[float, float]:
    """Return seconds to `up` and resident megabytes then."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **environ},
    )
    try:
        if process.stdout.readline().strip() != "up":
            raise RuntimeError("the program did not come up")
        seconds = time.perf_counter() - began
        time.sleep(0.2)
        pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
        return seconds, pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    finally:
        process.terminate()
        process.wait(20)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    programs = {"bare interpreter": BARE, "ketch service, idle": KETCH}
    if importlib.util.find_spec("grpc"):
        programs["grpc.aio server, empty"] = GRPC_AIO
    with tempfile.TemporaryDirectory() as folder:
        seen: dict[str, list[tuple[float, float]]] = {name: [] for name in programs}
        for _ in range(rounds):
            for name, program in programs.items():
                seen[name].append(measure(program, {"XDG_RUNTIME_DIR": folder}))
    print(f"{'program':26}{'seconds':>9}{'MiB':>8}")
    for name, values in seen.items():
        seconds, memory = (statistics.median(column) for column in zip(*values, strict=True))
        print(f"{name:26}{seconds:9.2f}{memory:8.1f}")


if __name__ == "__main__":
    main()
