"""What a STOMP URL may say."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from ...errors import ConfigurationError

if TYPE_CHECKING:
    from ...url import Url

DEFAULT_ADDRESS = "127.0.0.1"
PORT = 61613
TLS_PORT = 61614
_DAY = 86_400
_OPTIONS = ("scheduler", "vhost", "timeout", "connect_timeout", "heartbeat", "tls", "tls_ca", "tls_cert", "tls_key")


@dataclass(frozen=True, slots=True)
class Config:
    """`stomp://user:password@host:port,host:port?option=…`.

    Attributes:
        servers: host and port of each.
        username, password: "" for none.
        tls: how to encrypt; None for plain text.
        scheduler: whether the server has one (`schedulerSupport="true"`), so that events can be published for later.
        vhost: the virtual host, for servers that have several; "" for the server's own name.
        timeout: seconds for an answer of the server's.
        connect_timeout: seconds to connect.
        heartbeat: seconds between signs of life, both ways; after two without one a connection is given up.
    """

    servers: tuple[tuple[str, int], ...]
    username: str
    password: str = field(repr=False)
    tls: ssl.SSLContext | None
    scheduler: bool
    vhost: str
    timeout: float
    connect_timeout: float
    heartbeat: float

    @classmethod
    def from_url(cls, url: Url) -> Self:
        """Read and check a URL.

        Raises:
            ConfigurationError: an option is unknown or wrong.
        """
        url.only(*_OPTIONS)
        scheduler = url.options.get("scheduler", "0")
        if scheduler not in ("0", "1"):
            raise ConfigurationError(f"stomp: scheduler is 0 or 1, not {scheduler!r}")
        if url.path:
            raise ConfigurationError(f"stomp has no path: {url}")
        tls = _tls(url.options)
        addresses = (url.address or DEFAULT_ADDRESS).split(",")
        return cls(
            servers=tuple(_server(url, address.strip(), TLS_PORT if tls else PORT) for address in addresses),
            username=url.username,
            password=url.password,
            tls=tls,
            scheduler=scheduler == "1",
            vhost=url.options.get("vhost", ""),
            timeout=_between(url, "timeout", 5.0, 0.001, _DAY),
            connect_timeout=_between(url, "connect_timeout", 5.0, 0.001, _DAY),
            heartbeat=_between(url, "heartbeat", 10.0, 0.1, 3600.0),
        )

    @property
    def location(self) -> str:
        """The servers, for people."""
        scheme = "stomp+ssl" if self.tls else "stomp"
        return ", ".join(f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}" for host, port in self.servers)


def _server(url: Url, address: str, default: int) -> tuple[str, int]:
    try:
        parts = urlsplit(f"stomp://{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or port == 0:
        raise ConfigurationError(f"{url}: {address!r} is no host:port")
    return host, port or default


def _between(url: Url, option: str, default: float, least: float, most: float) -> float:
    number = url.number(option, default)
    if not least <= number <= most:
        raise ConfigurationError(f"stomp: {option} is between {least:g} and {most:g}, not {number:g}")
    return number


def _tls(options: dict[str, str]) -> ssl.SSLContext | None:
    if not {"tls", "tls_ca", "tls_cert", "tls_key"} & set(options) or options.get("tls") in ("0", "false"):
        return None
    if ("tls_cert" in options) != ("tls_key" in options):
        raise ConfigurationError("stomp: tls_cert and tls_key come together")
    try:
        context = ssl.create_default_context(cafile=options.get("tls_ca"))
        if "tls_cert" in options:
            context.load_cert_chain(options["tls_cert"], options["tls_key"])
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"stomp: the TLS files can't be used: {error}") from error
    return context
