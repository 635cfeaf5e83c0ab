# noqa: INP001 - a script, in no package
"""`make demo`: three processes, no third-party server. A user is created and the e-mail goes out."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Seconds for a program to say what is expected of it, and to stop.
_PATIENCE = 20.0


class Missing(Exception):
    """A program did not say or do what it should have."""


class Program:
    """A process whose output is shown, each line behind the program's name."""

    def __init__(self, name: str, environ: Mapping[str, str]) -> None:
        self._name = name
        self._seen = ""
        self._news = threading.Condition()
        self._process = subprocess.Popen(  # noqa: S603 - our own modules
            [sys.executable, "-m", f"shippy.{name.replace('-', '_')}"],
            env=environ,
            cwd=environ["XDG_RUNTIME_DIR"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def wait_for(self, text: str) -> None:
        """Wait until it has said something."""
        deadline = time.monotonic() + _PATIENCE
        with self._news:
            while text not in self._seen:
                left = deadline - time.monotonic()
                if left <= 0 or not (self._reader.is_alive() or text in self._seen):
                    raise Missing(f"{self._name} never said {text!r}")
                self._news.wait(min(left, 0.5))

    def finish(self) -> None:
        """Wait until it has ended by itself, well."""
        self._end("")

    def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - it was asked for
        for line in self._process.stdout:
            sys.stdout.write(f"{self._name:<13} | {line}")
            sys.stdout.flush()
            with self._news:
                self._seen += line
                self._news.notify_all()

    def _end(self, asked: str) -> None:
        try:
            code = self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            raise Missing(f"{self._name} did not end{asked}") from None
        if code != 0:
            raise Missing(f"{self._name} ended with exit code {code}{asked}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        try:
            self._process.terminate()
            if failed is None:
                self._end(" after SIGTERM")
        finally:
            self._kill()

    def _kill(self) -> None:
        try:
            self._process.wait(2.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()


def main() -> int:
    """Run the demo; 0 when everything was said that should be."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="shippy-") as directory:
        try:
            _demonstrate(_environ(directory))
        except Missing as missing:
            sys.stdout.write(f"demo failed: {missing}\n")
            return 1
    sys.stdout.write(f"demo: a user was created and the e-mail went out, in {time.monotonic() - started:.1f} s\n")
    return 0


def _demonstrate(environ: Mapping[str, str]) -> None:
    with ExitStack() as stack:
        email = stack.enter_context(Program("email-service", environ))
        users = stack.enter_context(Program("user-service", environ))
        email.wait_for(" is up: ")
        users.wait_for(" is up: ")
        cli = stack.enter_context(Program("user-cli", environ))
        cli.wait_for("Created: ")
        cli.wait_for("Your access token is: ")
        email.wait_for("Sending email to: Ewan Valentine")
        cli.finish()


def _environ(directory: str) -> dict[str, str]:
    # On the embedded defaults whatever the caller's shell has set, and apart from other runs.
    ours = ("MICRO_", "GO_MICRO_", "SHIPPY_", "DB_", "DATABASE_URL", "JWT_KEY")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**kept, "XDG_RUNTIME_DIR": directory, "JWT_KEY": secrets.token_hex(32), "PYTHONUNBUFFERED": "1"}


if __name__ == "__main__":
    sys.exit(main())
