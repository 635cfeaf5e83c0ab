"""Console: a unix socket of each supervisor where its user, and nobody else, learns how the workers are.

Whoever connects gets the status as JSON, and the end; nothing is read. The socket has mode 0600 and is in a directory
of mode 0700 that is refused when it is somebody else's or others may write in it.
"""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import sys
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import msgspec

from ..errors import ConfigurationError, KetchError
from .reports import MAX_REPORT, Status, encode
from .say import say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Seconds that either side may take.
_PATIENCE: Final = 5.0
#: Longest path of a unix socket, in bytes (sun_path in sys/un.h; 104 on macOS).
_LONGEST: Final = 100
#: Supervisors that are asked, at most.
_MOST: Final = 256


class Console:
    """Tells the status; without a usable directory it says so and does nothing.

    Args:
        runtime: the user's runtime directory, "" where there is none.
        status: returns what is told.
    """

    def __init__(self, runtime: str, status: Callable[[], Status]) -> None:
        self._runtime = runtime
        self._status = status
        self._path: Path | None = None
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        try:
            folder = directory(self._runtime)
            path = folder / f"{os.getpid()}.sock"
            with _short(path) as name:
                path.unlink(missing_ok=True)  # of a process that had our id
                listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                listening.bind(name)
            path.chmod(0o600)
            self._path = path
            self._server = await asyncio.start_unix_server(self._tell, sock=listening)
        except (OSError, KetchError) as error:
            say(f"`ketch workers` won't show these: {error}")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    async def _tell(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, TimeoutError):  # whoever asked has gone
            async with asyncio.timeout(_PATIENCE):
                writer.write(encode(self._status()))
                await writer.drain()
        writer.close()


def directory(runtime: str) -> Path:
    """Return the directory of the sockets, made where it isn't there.

    Raises:
        ConfigurationError: it isn't ours alone.
        OSError: it can't be made.
    """
    if sys.platform == "win32":
        raise ConfigurationError("workers need unix sockets")
    above = Path(tempfile.gettempdir(), f"ketch-{os.geteuid()}")
    if runtime and _ours(Path(runtime)):
        above = Path(runtime, "ketch")
    for path in (above, above / "workers"):
        with suppress(FileExistsError):
            path.mkdir(mode=0o700)
        if not _ours(path) or stat.S_IMODE(path.lstat().st_mode) & (stat.S_IWGRP | stat.S_IWOTH):
            raise ConfigurationError(f"{path} must be a directory of user {os.geteuid()} that no other may write")
    return above / "workers"


def ask_all(runtime: str) -> list[Status]:
    """Return the status of each supervisor of this user. What supervisors that died have left is removed. Blocks.

    Raises:
        ConfigurationError: the directory isn't ours alone.
    """
    try:
        paths = sorted(directory(runtime).glob("*.sock"))[:_MOST]
    except OSError as error:
        raise ConfigurationError(f"the directory of `ketch workers`: {error}") from error
    return [status for path in paths if (status := _ask(path)) is not None]


def _ask(path: Path) -> Status | None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(_PATIENCE)
        data = bytearray()
        try:
            with _short(path) as name:
                asking.connect(name)
            while len(data) <= MAX_REPORT and (chunk := asking.recv(65_536)):
                data += chunk
            return msgspec.json.decode(data, type=Status)
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        except (OSError, msgspec.MsgspecError):
            pass  # it is just ending, or so busy that it doesn't count as running
    return None


def _ours(path: Path) -> bool:
    try:
        facts = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.geteuid()


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """Give a name of a socket that the system takes, however long its path is. Linux only; elsewhere, as it is."""
    if len(os.fsencode(path)) <= _LONGEST or sys.platform != "linux":
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
