"""A directory of records, each locked by the process that owns it. Calls block for microseconds; no asyncio.

A record is a file `<hash of the instance's id>.json`. Its owner writes a draft, takes `flock(LOCK_EX)` and
renames the draft to that name, so no reader ever sees a half-written record, or an unlocked one whose owner
lives. The kernel lets go of the lock when the owner ends, however it ends. Registering an id again renames
over the name: it is there throughout, with the old record or the new one.
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
from typing import TYPE_CHECKING, TypeAlias
from weakref import WeakSet

from ..errors import ConfigurationError, RegistryError
from .record import MAX_RECORD

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from pathlib import Path

#: Files that are looked at, at most; a directory with more is misused.
MAX_FILES = 4096

#: Tells one content of a name from another: inode, time of writing in nanoseconds, size.
Stamp: TypeAlias = tuple[int, int, int]

_NAME = re.compile(r"[0-9a-f]{32}\.json")
_DRAFT = ".draft-"
_DRAFT_AGE = 60.0  # seconds after which an unlocked draft is what a process left that died while writing it
_TRIES = 10
_ADVICE = "; or name a directory of your own: local:///path (MICRO_REGISTRY)"


def is_record(name: str) -> bool:
    """Tell whether a file's name is a record's; other files are not ours to touch."""
    return _NAME.fullmatch(name) is not None


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


class Folder:
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
        """Return the names of the files there, at most one more than `MAX_FILES`.

        Raises:
            FileNotFoundError: there is no such directory.
            RegistryError: it can't be read.
        """
        try:
            with os.scandir(self.path) as entries:
                names = (entry.name for entry in entries)
                return list(islice((name for name in names if not name.startswith(_DRAFT)), MAX_FILES + 1))
        except FileNotFoundError:
            raise
        except OSError as error:
            raise self._failed("can't be read", error) from error

    def write(self, instance_id: str, data: bytes) -> Held:
        """Write a record, and hold it until `remove`; it takes the place of one of the same id.

        Raises:
            RegistryError: it can't be written.
        """
        draft = self._file(f"{_DRAFT}{secrets.token_hex(8)}")
        try:
            fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            held = Held(_name(instance_id), fd)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _fill(fd, data)
                os.rename(draft, self._file(held.name))  # noqa: PTH104 - names are text here, see _file
            except BaseException:
                held.let_go()
                _unlink(draft)
                raise
        except OSError as error:
            raise self._failed("can't be written", error) from error
        return held

    def remove(self, held: Held) -> None:
        """Remove a record of ours.

        One that is gone already, that another process has replaced, or that is our parent's, is no error.

        Raises:
            RegistryError: the file can't be removed; its lock is given up all the same, so it counts as dead.
        """
        try:
            if held.fd >= 0 and self._is(held.name, os.fstat(held.fd)):
                _unlink(self._file(held.name))
        except OSError as error:
            raise self._failed("can't be written", error) from error
        finally:
            held.let_go()

    def lost(self, held: Held) -> bool:
        """Tell whether somebody took the file of a record of ours away, without putting another one there."""
        return not os.path.lexists(self._file(held.name))

    def replaced(self, held: Held) -> bool:
        """Tell whether somebody else has put a record of that id there."""
        return not self.lost(held) and not self._is(held.name, os.fstat(held.fd))

    def read(self, name: str, seen: Stamp | None = None) -> tuple[Stamp, bytes] | None:
        """Return a record's stamp and bytes (at most `MAX_RECORD` + 1), none of these if the stamp is `seen`.

        Where the owner is dead, the file is removed and the answer is None; so it is where there is no file.

        Raises:
            OSError: the file can't be opened, locked or read, or is no regular file. Its owner may well live.
        """
        for _ in range(_TRIES):
            try:
                # O_NONBLOCK: a FIFO that somebody put there must not stop us.
                fd = os.open(self._file(name), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            except FileNotFoundError:
                return None
            try:
                facts = os.fstat(fd)
                if not stat.S_ISREG(facts.st_mode):
                    raise OSError("it is no regular file")
                if _locked(fd):
                    stamp = facts.st_ino, facts.st_mtime_ns, facts.st_size
                    return stamp, b"" if stamp == seen else os.read(fd, MAX_RECORD + 1)
                if self._is(name, facts):  # not so where it was replaced since we opened it
                    _unlink(self._file(name))
                    return None
            finally:
                os.close(fd)
        raise OSError("it changes faster than it can be read")

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
                        self.read(draft.name)
        except OSError as error:
            raise self._failed("can't be read", error) from error

    def _file(self, name: str) -> str:
        return f"{self.path}/{name}"  # a Path costs as much as the system calls

    def _is(self, name: str, facts: os.stat_result) -> bool:
        try:
            there = os.lstat(self._file(name))
        except FileNotFoundError:
            return False
        return (there.st_ino, there.st_dev) == (facts.st_ino, facts.st_dev)

    def _check(self, path: Path) -> None:
        facts = path.lstat()
        if not stat.S_ISDIR(facts.st_mode):
            raise RegistryError(f"registry directory {self.path}: {path} is a file or symbolic link{_ADVICE}")
        if facts.st_uid != os.geteuid():
            raise RegistryError(f"registry directory {self.path}: {path} belongs to user {facts.st_uid}{_ADVICE}")
        if facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise RegistryError(f"registry directory {self.path}: others may write {path}; chmod 700 it{_ADVICE}")

    def _failed(self, what: str, error: OSError) -> RegistryError:
        return RegistryError(f"registry directory {self.path} {what}: {error.strerror or error}{_ADVICE}")


def _name(instance_id: str) -> str:
    # Ids may hold anything; their hash is a safe name of fixed length.
    return hashlib.sha256(instance_id.encode()).hexdigest()[:32] + ".json"


def _fill(fd: int, data: bytes) -> None:
    if os.write(fd, data) != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    # The file system's own stamps move in ticks of milliseconds, and inodes are used again within one; ours
    # makes sure that no two contents of a name look the same.
    now = time.time_ns()
    os.utime(fd, ns=(now, now))


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _unlink(file: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(file)  # noqa: PTH108 - names are text here, see _file
