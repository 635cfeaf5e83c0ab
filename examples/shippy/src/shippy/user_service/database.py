"""The database's connections, and its errors put into words."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from ketch import Unavailable

from .migrations.run import upgrade

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy import URL, Connection

#: Seconds to connect, to wait for a free connection or for SQLite's lock, and for one statement.
_TIMEOUT = 5

#: Any number does that all instances agree on: who holds this lock migrates, the others wait.
_MIGRATION_LOCK = 7_234_001


class Database:
    """A database that is open and has the schema of this version."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self.location = engine.url.render_as_string(hide_password=True)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """Run a block in one transaction: committed at its end, rolled back if it raises.

        Raises:
            Unavailable: the database can't be reached, or took too long.
            IntegrityError: a constraint was broken.
        """
        with_errors = _mapped(self.location)
        async with with_errors, self._engine.begin() as connection:
            yield connection

    async def migrate(self) -> None:
        """Bring the schema up to date. Instances that start together do it one after the other."""
        async with self.transaction() as connection:
            if connection.dialect.name == "sqlite":
                # Taken at once: a lock that is upgraded half-way fails instead of waiting.
                await connection.exec_driver_sql("BEGIN IMMEDIATE")
            else:
                await connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})")
            await connection.run_sync(_upgrade)


@asynccontextmanager
async def open_database(url: URL) -> AsyncIterator[Database]:
    """Open a database and bring its schema up to date.

    Raises:
        Unavailable: it can't be reached.
    """
    # At DEBUG this driver logs each statement with its parameters, and one of them is a hash.
    logging.getLogger("aiosqlite").setLevel(logging.INFO)
    engine = create_async_engine(url, **_arguments(url))
    try:
        database = Database(engine)
        if url.get_backend_name() == "sqlite":
            async with _mapped(database.location):
                await asyncio.to_thread(_probe, url.database or "")
        await database.migrate()
        yield database
    finally:
        await engine.dispose()


def _probe(path: str) -> None:
    # aiosqlite's thread outlives a connect that fails, and breaks when the loop ends first; so it is tried without.
    with contextlib.closing(sqlite3.connect(path, timeout=_TIMEOUT)) as connection:
        connection.execute("PRAGMA schema_version")


def _upgrade(connection: Connection) -> None:
    upgrade(connection)


def _arguments(url: URL) -> dict[str, Any]:
    # hide_parameters: a statement that fails is logged, and its parameters hold a hash.
    common: dict[str, Any] = {"hide_parameters": True}
    if url.get_backend_name() == "sqlite":
        return {**common, "connect_args": {"timeout": _TIMEOUT}}
    return {
        **common,
        "pool_pre_ping": True,  # a connection that died while idle is replaced, not handed out
        "pool_timeout": _TIMEOUT,
        "connect_args": {"timeout": _TIMEOUT, "command_timeout": _TIMEOUT},
    }


@asynccontextmanager
async def _mapped(location: str) -> AsyncIterator[None]:
    try:
        yield
    except IntegrityError:
        raise
    except (DBAPIError, PoolTimeout, sqlite3.Error, OSError, TimeoutError) as error:
        # The driver's own words stay in the chain, for the log: they may name hosts and users.
        raise Unavailable(f"the database {location} can't be used: {_reason(error)}; is it running?") from error


def _reason(error: BaseException) -> str:
    cause = getattr(error, "orig", None) or error
    return str(cause).splitlines()[0] if str(cause) else type(cause).__name__
