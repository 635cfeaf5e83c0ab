"""A directory of records, each locked by the process that owns it. Calls block for microseconds; no asyncio.

A record is a file `<hash of the id>.<serial>.json`. Its owner writes it under another name, takes
`flock(LOCK_EX)` and renames it, so no reader ever sees a half-written or an unlocked record of a living
process. The kernel lets go of the lock when the owner ends, however it ends. What a name holds never changes:
registering an id again makes a file with a higher serial and removes the lower ones, and a reader that sees
both takes the higher.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import stat
import sys
import time
from itertools import islice
from typing import TYPE_CHECKING
from weakref import WeakSet

from ..errors import ConfigurationError, RegistryError
from .record import MAX_RECORD

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from pathlib import Path

#: Names that are looked at, at most; a directory with more is misused.
MAX_FILES = 4096

_NAME = re.compile(r"([0-9a-f]{32})\.([0-9a-f]{20})\.json")
_DRAFT = ".draft-"
_DRAFT_AGE = 60.0  # seconds after which an unlocked draft is the rest of a process that died while writing it


class Held:
    """A record of ours: the name of its file, and the open file whose lock keeps it alive."""

    __slots__ = ("__weakref__", "fd", "name")

    def __init__(self, name: str, fd: int) -> None:
        self.name = name
        self.fd = fd
        _held.add(self)

    def let_go(self) -> None:
        """Close the file, and with it the lock."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)


# A forked child has our open files too, and would keep our records alive after our death.
_held: WeakSet[Held] = WeakSet()


def _let_go_in_child() -> None:
    for held in list(_held):
        held.let_go()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_let_go_in_child)


class Directory:
    """The records in one directory, which only this user may write.

    Args:
        path: the directory; made, with mode 0700, when it isn't there.
        private: how many levels up from `path` must be ours alone as well.
    """

    def __init__(self, path: Path, *, private: int = 0) -> None:
        if sys.platform == "win32":
            raise ConfigurationError("the local registry needs POSIX file locks; on Windows choose another one")
        self.path = path
        self._ours = [path, *path.parents[:private]][::-1]

    def prepare(self) -> None:
        """Make the directory where it isn't there, and check that nobody else can write in it.

        Raises:
            RegistryError: it can't be made or written, or isn't ours alone.
        """
        try:
            self._ours[0].parent.mkdir(parents=True, exist_ok=True)
            for path in self._ours:
                with contextlib.suppress(FileExistsError):
                    path.mkdir(mode=0o700)
                self._check(path)
        except OSError as error:
            raise self._failed("can't be made", error) from error
        if not os.access(self.path, os.R_OK | os.W_OK | os.X_OK):
            raise RegistryError(f"registry directory {self.path} isn't writable for user {os.geteuid()}{_ADVICE}")

    def names(self) -> list[str]:
        """Return the names of the files there, in order, at most one more than `MAX_FILES`.

        Raises:
            FileNotFoundError: there is no such directory.
            RegistryError: it can't be read.
        """
        try:
            with os.scandir(self.path) as entries:
                names = (entry.name for entry in entries)
                return sorted(islice((name for name in names if not name.startswith(_DRAFT)), MAX_FILES + 1))
        except FileNotFoundError:
            raise
        except OSError as error:
            raise self._failed("can't be read", error) from error

    def write(self, instance_id: str, data: bytes) -> Held:
        """Write a record, and hold it until `remove`; older ones of the id are removed, whoever holds them.

        Raises:
            RegistryError: it can't be written.
        """
        try:
            older = [name for name in self.names() if is_record(name) and same_id(name, instance_id)]
            held = self._publish(_name(instance_id, older), data)
            for name in older:
                self._unlink(name)
        except OSError as error:
            raise self._failed("can't be written", error) from error
        return held

    def remove(self, held: Held) -> None:
        """Remove a record of ours; one that is gone already, or was our parent's before a fork, is no error.

        Raises:
            RegistryError: the file can't be removed; its lock is given up all the same, so it counts as dead.
        """
        try:
            if held.fd >= 0:
                self._unlink(held.name)
        except OSError as error:
            raise self._failed("can't be written", error) from error
        finally:
            held.let_go()

    def lost(self, held: Held) -> bool:
        """Tell whether somebody took the file of a record of ours away."""
        return held.fd >= 0 and not (self.path / held.name).exists()

    def taken_over(self, instance_id: str) -> bool:
        """Tell whether there is a record of that id, such as a newer one of another process.

        Raises:
            RegistryError: the directory can't be read.
        """
        try:
            return any(is_record(name) and same_id(name, instance_id) for name in self.names())
        except FileNotFoundError:
            return False

    def alive(self, name: str) -> bool:
        """Tell whether the owner of a record lives; the file of one that doesn't is removed.

        Raises:
            OSError: the file can't be opened or locked, which says nothing about its owner.
        """
        try:
            fd = self._open(name)
        except FileNotFoundError:
            return False
        try:
            return self._locked(fd, name)
        finally:
            os.close(fd)

    def read(self, name: str) -> bytes | None:
        """Return a record's bytes, at most `MAX_RECORD` + 1; None where its owner is dead or took it away.

        Raises:
            OSError: the file can't be opened, locked or read, or is no regular file.
        """
        try:
            fd = self._open(name)
        except FileNotFoundError:
            return None
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError("it is no regular file")
            return os.read(fd, MAX_RECORD + 1) if self._locked(fd, name) else None
        finally:
            os.close(fd)

    def sweep(self) -> None:
        """Remove drafts of processes that died while they wrote them.

        Raises:
            RegistryError: the directory can't be read.
        """
        try:
            with os.scandir(self.path) as entries:
                drafts = [entry for entry in entries if entry.name.startswith(_DRAFT)]
            for draft in drafts:
                with contextlib.suppress(FileNotFoundError):  # its owner has finished it meanwhile
                    if time.time() - draft.stat(follow_symlinks=False).st_mtime > _DRAFT_AGE:
                        self.alive(draft.name)
        except OSError as error:
            raise self._failed("can't be read", error) from error

    def _publish(self, name: str, data: bytes) -> Held:
        draft = self.path / f"{_DRAFT}{secrets.token_hex(8)}"
        fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _write(fd, data)
            draft.rename(self.path / name)
        except BaseException:
            os.close(fd)
            draft.unlink(missing_ok=True)
            raise
        return Held(name, fd)

    def _open(self, name: str) -> int:
        # O_NONBLOCK: a FIFO that somebody put there must not stop us.
        return os.open(self.path / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)

    def _locked(self, fd: int, name: str) -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        self._unlink(name)
        return False

    def _unlink(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    def _check(self, path: Path) -> None:
        facts = path.lstat()
        if not stat.S_ISDIR(facts.st_mode):
            raise RegistryError(f"registry directory {self.path}: {path} is no directory (or a symbolic link){_ADVICE}")
        if facts.st_uid != os.geteuid():
            raise RegistryError(f"registry directory {self.path}: {path} belongs to user {facts.st_uid}{_ADVICE}")
        if facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise RegistryError(f"registry directory {self.path}: others may write {path}; chmod 700 it{_ADVICE}")

    def _failed(self, what: str, error: OSError) -> RegistryError:
        return RegistryError(f"registry directory {self.path} {what}: {error.strerror or error}{_ADVICE}")


_ADVICE = "; or name a directory of your own: local:///path (MICRO_REGISTRY)"


def is_record(name: str) -> bool:
    """Tell whether a file's name is a record's; other files are not ours to touch."""
    return _NAME.fullmatch(name) is not None


def same_id(name: str, instance_id: str) -> bool:
    """Tell whether a record's name is of that instance."""
    return name.startswith(_digest(instance_id))


def _write(fd: int, data: bytes) -> None:
    if os.write(fd, data) != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _name(instance_id: str, older: list[str]) -> str:
    # The clock, or one above what is there should the clock have been set back; the low bits tell apart
    # two that register the same id in the same nanosecond.
    newest = max((int(name.split(".")[1], 16) for name in older), default=0)
    serial = max(time.time_ns() << 16, newest + (1 << 16)) | secrets.randbits(16)
    return f"{_digest(instance_id)}.{serial:020x}.json"


def _digest(instance_id: str) -> str:
    # Ids may hold anything; their hash is a safe name of fixed length.
    return hashlib.sha256(instance_id.encode()).hexdigest()[:32]
