"""Supervisor: child processes of a service, started, watched, restarted and stopped."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from .changes import Changes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import FrameType

#: Exit code of a worker whose configuration is wrong: starting it again won't help.
_CONFIGURATION = 2

#: Seconds between two looks at the workers, and at the files.
_TICK = 0.1

#: Seconds before a worker that died is started again: doubled each time, and forgotten after it lived for a while.
_BACKOFF = 0.5
_MAX_BACKOFF = 30.0
_LONG_LIFE = 10.0

#: Seconds that workers get to drain before they are killed; longer than any sensible grace period.
_PATIENCE = 60.0


class Supervisor:
    """Keeps `count` processes of `command` running until SIGTERM or SIGINT; restarts all when a file changes."""

    def __init__(self, command: Sequence[str], count: int, folders: Sequence[Path]) -> None:
        self._workers = [_Worker(number + 1, command) for number in range(count)]
        self._changes = Changes(folders)
        self._reloads = bool(folders)
        self._stopping = False

    def run(self) -> int:
        """Run, and return the exit code: 0 after a signal, 2 when the service's configuration is wrong."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        say(f"{len(self._workers)} worker(s)" + (", reloading on change" if self._reloads else ""))
        for worker in self._workers:
            worker.start()
        code = 0
        while not self._stopping:
            time.sleep(_TICK)
            if self._reloads and (changed := self._changes.look()):
                say(f"{changed} changed, restarting")
                self._restart()
            if any(worker.look() == _CONFIGURATION for worker in self._workers) and not self._reloads:
                code = _CONFIGURATION
                break
        self._stop()
        return code

    def _on_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - as signal has it
        self._stopping = True

    def _restart(self) -> None:
        self._stop()
        for worker in self._workers:
            worker.start()

    def _stop(self) -> None:
        for worker in self._workers:
            worker.terminate()
        deadline = time.monotonic() + _PATIENCE
        for worker in self._workers:
            worker.wait(max(0.0, deadline - time.monotonic()))


class _Worker:
    """One child process and how often it died of late."""

    def __init__(self, number: int, command: Sequence[str]) -> None:
        self._number = number
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._born = 0.0
        self._due = 0.0
        self._pause = _BACKOFF

    def start(self) -> None:
        # A process group of its own: Ctrl-C is for the supervisor, which then asks the workers to stop, once.
        self._process = subprocess.Popen(self._command, process_group=0)  # noqa: S603 - our own interpreter
        self._born = time.monotonic()

    def look(self) -> int | None:
        """Return the exit code if the worker has just died; start it again when that is due."""
        now = time.monotonic()
        if self._process is None:
            if self._due and now >= self._due:
                self._due = 0.0
                self.start()
            return None
        code = self._process.poll()
        if code is None:
            return None
        self._process = None
        self._bury(code, now)
        return code

    def _bury(self, code: int, now: float) -> None:
        if code == _CONFIGURATION:
            return  # nothing but a change of files helps
        if now - self._born >= _LONG_LIFE:
            self._pause = _BACKOFF
        ended = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        say(f"worker {self._number} {ended}, starting it again in {self._pause:g} s")
        self._due = now + self._pause
        self._pause = min(self._pause * 2, _MAX_BACKOFF)

    def terminate(self) -> None:
        self._due = 0.0
        if self._process is not None:
            self._process.terminate()

    def wait(self, seconds: float) -> None:
        if self._process is None:
            return
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            say(f"worker {self._number} did not stop, killing it")
            self._process.kill()
            self._process.wait()
        self._process = None


def say(text: str) -> None:
    """Print a line of the supervisor's own."""
    print(f"ketch run: {text}", file=sys.stderr, flush=True)
