"""What the benchmarks share: a server in a process of its own, a client in another, and what they cost."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def serving(script: str, *arguments: object) -> Iterator[tuple[str, int]]:
    """Run `script serve …` while the block runs; yields the address that it prints, and its process id."""
    command = [sys.executable, script, "serve", *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip(), process.pid
        finally:
            process.terminate()


def ask(script: str, *arguments: object) -> Any:
    """Run `script measure …` to its end and return the JSON that it prints."""
    command = [sys.executable, script, "measure", *map(str, arguments)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


async def until_the_parent_goes() -> None:
    """Wait for the end of standard input."""
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


def cpu(process: int) -> float:
    """Return the seconds of processor time that all threads of a process have taken (clock_getcpuclockid(3))."""
    return time.clock_gettime(~process << 3 | 2)


def memory(process: int | str = "self", what: str = "VmRSS") -> int:
    """Return the bytes that a process has resident, or `VmHWM`: had at most."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(what + ":"))
