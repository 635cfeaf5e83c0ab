"""Store: calls to the server, each within its time, with errors as ours."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from hiredis import ReplyError

from ...errors import BrokerError, RegistryError
from ...resp.link import Link
from ...resp.refusal import refusal
from .scripts import REMOVE, SWEEP, WRITE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterable

    from ...resp.connection import Argument
    from .config import Config
    from .shelf import Shelf

#: Fields that the server is asked for at a time, more or less.
_PAGE = 500


@asynccontextmanager
async def explained(config: Config, doing: str) -> AsyncIterator[None]:
    """Bound the time of what is done within, and turn its errors into ours.

    Raises:
        RegistryError: what else is raised within, and what isn't done within the timeout.
    """
    where, timeout = config.place.location, config.place.timeout
    try:
        async with asyncio.timeout(timeout):
            yield
    except TimeoutError as error:
        raise RegistryError(f"redis at {where}: {doing}: no answer within {timeout:g} s") from error
    except BrokerError as error:
        raise RegistryError(f"redis at {error}") from error  # the protocol's own errors say where
    except ReplyError as error:
        raise RegistryError(f"redis at {refusal(where, doing, error)}") from error


class Store:
    """The shelves, as the server keeps them."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._link = Link(config.place, f"ketch/registry/{config.prefix}", quiet=True)
        self._ttl = round(config.ttl * 1000)

    async def open(self) -> None:
        """Connect.

        Raises:
            RegistryError: the server can't be reached, or refuses us.
        """
        async with explained(self._config, "connecting"):
            await self._link.open()

    async def close(self) -> None:
        """Disconnect."""
        await self._link.close()

    async def write(self, batches: Iterable[tuple[Shelf, Iterable[tuple[str, bytes]]]]) -> None:
        """File records by their ids, each for another time to live.

        Raises:
            RegistryError: the server can't be written.
        """
        await self._run(
            "registering",
            [_script(WRITE, shelf, self._ttl, *(part for pair in pairs for part in pair)) for shelf, pairs in batches],
        )

    async def remove(self, shelves: Iterable[Shelf], instance_id: str, record: bytes) -> None:
        """Take an instance off some shelves where it has this record, or any for b"".

        Raises:
            RegistryError: the server can't be written.
        """
        await self._run("deregistering", [_script(REMOVE, shelf, instance_id, record) for shelf in shelves])

    async def sweep(self, shelf: Shelf) -> tuple[int, float | None]:
        """Remove what has run out; return the version, 0 for an empty shelf, and the seconds until something does.

        Raises:
            RegistryError: the server can't be asked.
        """
        ((version, left),) = await self._run("looking for what has run out", [_script(SWEEP, shelf)])
        return int(version or 0), None if left < 0 else left / 1000

    async def read(self, shelf: Shelf) -> AsyncGenerator[tuple[bytes, bytes], None]:
        """Yield ids and records; what changes meanwhile comes as it was, or as it is, or both.

        Raises:
            RegistryError: the server can't be read.
        """
        cursor: bytes | int = 0
        while True:
            ((cursor, fields),) = await self._run("reading", [("HSCAN", shelf.keys[0], cursor, "COUNT", _PAGE)])
            for at in range(0, len(fields), 2):
                yield fields[at], fields[at + 1]
            if int(cursor) == 0:
                return

    async def _run(self, doing: str, commands: Iterable[tuple[Argument, ...]]) -> list[Any]:
        """Send commands together and return their replies."""
        async with explained(self._config, doing):
            connection = await self._link.up()
            return await asyncio.gather(*(connection.request(*command) for command in commands))


def _script(script: str, shelf: Shelf, *arguments: Argument) -> tuple[Argument, ...]:
    return ("EVAL", script, len(shelf.keys), *shelf.keys, shelf.channel, *arguments)
