"""What a URL of a Redis server may say, whichever broker it is for."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from ..errors import ConfigurationError

if TYPE_CHECKING:
    from ..url import Url

#: The options that every Redis broker has.
OPTIONS = ("timeout", "connect_timeout", "tls", "tls_ca", "tls_cert", "tls_key")

_PORT = 6379


@dataclass(frozen=True, slots=True)
class Config:
    """`name://user:password@host:port/database?option=…`; a password alone is written `name://:password@host`.

    Attributes:
        host, port: the server.
        database: its number.
        username, password: "" for none; never to be shown.
        tls: how to encrypt; None for plain text.
        timeout: seconds that a command, or a lost connection, is waited for.
        connect_timeout: seconds to connect at start.
    """

    host: str
    port: int
    database: int = 0
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    tls: ssl.SSLContext | None = None
    timeout: float = 5.0
    connect_timeout: float = 5.0

    @classmethod
    def from_url(cls, url: Url) -> Self:
        """Read a URL whose options were checked to be known.

        Raises:
            ConfigurationError: something in it is wrong.
        """
        host, port = _address(url)
        if url.username and not url.password:
            raise ConfigurationError(f"{url.name}: a password alone is written {url.name}://:password@host")
        return cls(
            host=host,
            port=port,
            database=_database(url),
            username=url.username,
            password=url.password,
            tls=_tls(url),
            timeout=seconds(url, "timeout", 5.0),
            connect_timeout=seconds(url, "connect_timeout", 5.0),
        )

    @property
    def location(self) -> str:
        """The server, for people."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}/{self.database}" if self.database else f"{host}:{self.port}"


def seconds(url: Url, option: str, default: float) -> float:
    """Return an option as seconds.

    Raises:
        ConfigurationError: it is no number above 0.
    """
    value = url.number(option, default)
    if value <= 0:
        raise ConfigurationError(f"{url.name}: {option} must be more than 0 seconds, not {value:g}")
    return value


def _address(url: Url) -> tuple[str, int]:
    if "," in url.address:
        raise ConfigurationError(f"{url}: one server only; Redis Cluster and Sentinel are not supported")
    try:
        parts = urlsplit(f"redis://{url.address or '127.0.0.1'}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or port == 0:
        raise ConfigurationError(f"{url}: {url.address!r} is no host:port")
    return host, port or _PORT


def _database(url: Url) -> int:
    if url.path and not (url.path.isascii() and url.path.isdigit()):
        raise ConfigurationError(f"{url}: {url.path!r} is no number of a database")
    return int(url.path or 0)


def _tls(url: Url) -> ssl.SSLContext | None:
    options = url.options
    if not {"tls", "tls_ca", "tls_cert", "tls_key"} & set(options) or options.get("tls") in ("0", "false"):
        return None
    if ("tls_cert" in options) != ("tls_key" in options):
        raise ConfigurationError(f"{url.name}: tls_cert and tls_key come together")
    try:
        context = ssl.create_default_context(cafile=options.get("tls_ca"))
        if "tls_cert" in options:
            context.load_cert_chain(options["tls_cert"], options["tls_key"])
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"{url.name}: the TLS files can't be used: {error}") from error
    return context
