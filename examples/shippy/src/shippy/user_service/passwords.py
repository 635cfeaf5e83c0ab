"""Passwords: hashed with argon2id, a few at a time, beside the event loop."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from ketch import ResourceExhausted

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

#: One hash takes 64 MiB and a core for some hundredths of a second, so only so many are made at a time …
_AT_A_TIME = 2
#: … and only so many callers may wait for theirs.
_WAITING = 64


class Passwords:
    """Hashes and verifies passwords without holding up the event loop. Use it as `async with`."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher()
        self._waiting = 0
        self._nobodys = ""

    async def __aenter__(self) -> Self:
        self._threads = ThreadPoolExecutor(_AT_A_TIME, thread_name_prefix="passwords")
        self._nobodys = await self.hash("nobody's")
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self._threads.shutdown)

    async def hash(self, password: str) -> str:
        """Return the password's hash, with a salt of its own.

        Raises:
            ResourceExhausted: too many are waiting.
        """
        return await self._run(lambda: self._hasher.hash(password))

    async def verify(self, password: str, hashed: str | None) -> bool:
        """Tell whether it is the password; without a hash it takes as long and isn't.

        Raises:
            ResourceExhausted: too many are waiting.
        """
        matches = await self._run(lambda: self._matches(password, hashed or self._nobodys))
        return matches and hashed is not None

    def outdated(self, hashed: str) -> bool:
        """Tell whether a hash was made with other parameters than today's."""
        return self._hasher.check_needs_rehash(hashed)

    def _matches(self, password: str, hashed: str) -> bool:
        try:
            return self._hasher.verify(hashed, password)
        except (VerificationError, InvalidHashError):
            return False

    async def _run(self, work: Callable[[], T]) -> T:
        if self._waiting >= _WAITING:
            raise ResourceExhausted("too many sign-ins at the same time; try again")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._waiting -= 1
