"""Supervisor: child processes of a service, started, watched, restarted and stopped."""

from __future__ import annotations

import contextlib
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

#: prctl(2): be sent a signal when the parent dies. A supervisor that was killed must not leave orphans at work.
_PR_SET_PDEATHSIG = 1


class Supervisor:
    """Keeps `count` processes of `command` running until SIGTERM or SIGINT; restarts all when a file changes.

    Workers get `patience` seconds to drain before they are killed; a second signal makes them stop at once.
    """

    def __init__(self, command: Sequence[str], count: int, folders: Sequence[Path], patience: float) -> None:
        self._patience = patience
        self._signals = 0
        self._workers = [_Worker(number + 1, command) for number in range(count)]
        self._changes = Changes(folders)
        self._reloads = bool(folders)

    def run(self) -> int:
        """Run, and return the exit code: 0 after a signal, 2 when the service's configuration is wrong."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        say(f"{len(self._workers)} worker(s)" + (", reloading on change" if self._reloads else ""))
        try:
            for worker in self._workers:
                worker.start()
            return self._watch()
        finally:
            self._stop()

    def _watch(self) -> int:
        while not self._signals:
            time.sleep(_TICK)
            if self._reloads and (changed := self._changes.look()):
                say(f"{changed} changed, restarting")
                self._restart()
            if any(worker.look() == _CONFIGURATION for worker in self._workers) and not self._reloads:
                return _CONFIGURATION
        return 0

    def _on_signal(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - as signal has it
        self._signals += 1

    def _restart(self) -> None:
        self._stop()
        for worker in self._workers:
            if not self._signals:
                worker.start()

    def _stop(self) -> None:
        heard, deadline = self._signals, time.monotonic() + self._patience
        for worker in self._workers:
            worker.terminate()
        while any(worker.alive() for worker in self._workers) and time.monotonic() < deadline:
            time.sleep(_TICK)
            if self._signals > max(heard, 1):
                heard = self._signals
                for worker in self._workers:
                    worker.terminate()  # their second signal, too: they stop at once
        for worker in self._workers:
            worker.end()


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
        self._process = subprocess.Popen(self._command, process_group=0, preexec_fn=_die_with_parent)  # noqa: S603, PLW1509 - our own interpreter; there are no threads
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

    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def end(self) -> None:
        if self._process is None:
            return
        if self._process.poll() is None:
            say(f"worker {self._number} did not stop, killing it")
            self._process.kill()
        self._process.wait()
        self._process = None


def _die_with_parent() -> None:
    """Run in a worker before it becomes one: have it asked to stop when the supervisor dies. Linux only."""
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415 - needed here only

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def say(text: str) -> None:
    """Print a line of the supervisor's own."""
    with contextlib.suppress(OSError):  # whoever read it has gone, which is no reason to leave the workers alone
        print(f"ketch run: {text}", file=sys.stderr, flush=True)
