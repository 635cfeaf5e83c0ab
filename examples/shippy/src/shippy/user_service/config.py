"""What the environment says. No other file of this package reads it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from ketch.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

#: RFC 7518 section 3.2: a key for HS256 has at least as many bits as the hash.
_SHORTEST_KEY = 32

_DRIVERS = {
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "postgresql+asyncpg": "postgresql+asyncpg",
    "sqlite": "sqlite+aiosqlite",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
}


@dataclass(frozen=True, slots=True)
class Config:
    """How user-service is set up.

    Attributes:
        database: where the users are kept.
        jwt_key: what tokens are signed with.
        events: "typed" (protobuf, through the publisher) or "raw" (JSON, through the broker itself).
        outbox: whether events are stored with the user and published from there.
    """

    database: URL
    jwt_key: str = field(repr=False)
    events: str = "typed"
    outbox: bool = False

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Read `JWT_KEY`, `DATABASE_URL` or `DB_HOST …`, `SHIPPY_SQLITE`, `SHIPPY_EVENTS` and `SHIPPY_OUTBOX`.

        Raises:
            ConfigurationError: one of them is missing or wrong.
        """
        environ = os.environ if environ is None else environ
        events = environ.get("SHIPPY_EVENTS") or "typed"
        if events not in ("typed", "raw"):
            raise ConfigurationError(f"SHIPPY_EVENTS is typed or raw, not {events!r}")
        outbox = environ.get("SHIPPY_OUTBOX") or "0"
        if outbox not in ("0", "1"):
            raise ConfigurationError(f"SHIPPY_OUTBOX is 0 or 1, not {outbox!r}")
        return cls(database_url(environ), _jwt_key(environ), events, outbox == "1")


def database_url(environ: Mapping[str, str] | None = None) -> URL:
    """Return where the users are kept: `DATABASE_URL`, else PostgreSQL at `DB_HOST`, else a SQLite file.

    Raises:
        ConfigurationError: it can't be understood. The message never quotes it, since it may hold a password.
    """
    environ = os.environ if environ is None else environ
    if text := environ.get("DATABASE_URL"):
        return _parsed(text)
    if environ.get("DB_HOST"):
        return _postgres(environ)
    stray = [name for name in ("DB_PORT", "DB_USER", "DB_PASSWORD", "DB_NAME") if environ.get(name)]
    if stray:
        raise ConfigurationError(f"{', '.join(stray)} without DB_HOST; set DB_HOST too, or none of them for SQLite")
    return URL.create("sqlite+aiosqlite", database=str(Path(environ.get("SHIPPY_SQLITE") or "shippy.sqlite3")))


def _jwt_key(environ: Mapping[str, str]) -> str:
    key = environ.get("JWT_KEY", "")
    if len(key.encode()) < _SHORTEST_KEY:
        what = "is too short" if key else "is not set"
        raise ConfigurationError(
            f"JWT_KEY {what}: tokens are signed with it; give it at least {_SHORTEST_KEY} bytes that nobody can guess, "
            'such as the output of `python -c "import secrets; print(secrets.token_hex(32))"`'
        )
    return key


def _parsed(text: str) -> URL:
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise ConfigurationError("DATABASE_URL is no URL; try postgresql://user:password@host:5432/name") from None
    driver = _DRIVERS.get(url.drivername)
    if driver is None:
        raise ConfigurationError(f"DATABASE_URL is postgresql://… or sqlite:///…, not {url.drivername}://…")
    if "sslmode" in url.query:  # libpq's name for it; the driver's is `ssl`, with the same values
        mode = url.query["sslmode"]
        url = url.difference_update_query(["sslmode"]).update_query_dict({"ssl": mode})
    return url.set(drivername=driver)


def _postgres(environ: Mapping[str, str]) -> URL:
    port = environ.get("DB_PORT") or "5432"
    if not port.isdecimal() or not 0 < int(port) < 65536:  # noqa: PLR2004 - TCP's ports
        raise ConfigurationError(f"DB_PORT is a port number, not {port!r}")
    return URL.create(
        "postgresql+asyncpg",
        username=environ.get("DB_USER") or "postgres",
        password=environ.get("DB_PASSWORD") or None,
        host=environ["DB_HOST"],
        port=int(port),
        database=environ.get("DB_NAME") or "postgres",
    )
