"""What an MQTT URL may say."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from ...errors import ConfigurationError

if TYPE_CHECKING:
    from ...url import Url

DEFAULT_ADDRESS = "127.0.0.1"
PORT = 1883
TLS_PORT = 8883
DAY = 86_400
_OPTIONS = ("qos", "expiry", "timeout", "connect_timeout", "keepalive", "tls", "tls_ca", "tls_cert", "tls_key")

#: The longest that a session may be kept: the largest number but the one that says "for ever" (section 3.1.2.11.2).
_LONGEST = 0xFFFF_FFFE


@dataclass(frozen=True, slots=True)
class Config:
    """`mqtt://user:password@host:port,host:port?option=…`.

    Attributes:
        servers: host and port of each.
        username, password: "" for none.
        tls: how to encrypt; None for plain text.
        qos: 1 for at least once, 0 for at most once.
        expiry: seconds that the server keeps a group's session while nobody looks after it.
        timeout: seconds for an answer of the server's.
        connect_timeout: seconds to connect.
        keepalive: seconds after which a silent connection is tried, and after one and a half of which it is given up.
    """

    servers: tuple[tuple[str, int], ...]
    username: str
    password: str = field(repr=False)
    tls: ssl.SSLContext | None
    qos: int
    expiry: int
    timeout: float
    connect_timeout: float
    keepalive: int

    @classmethod
    def from_url(cls, url: Url) -> Self:
        """Read and check a URL.

        Raises:
            ConfigurationError: an option is unknown or wrong.
        """
        url.only(*_OPTIONS)
        qos = url.options.get("qos", "1")
        if qos not in ("0", "1"):
            raise ConfigurationError(f"mqtt: qos is 0 or 1, not {qos!r}")
        if url.path:
            raise ConfigurationError(f"mqtt has no path: {url}")
        tls = _tls(url.options)
        addresses = (url.address or DEFAULT_ADDRESS).split(",")
        return cls(
            servers=tuple(_server(url, address.strip(), TLS_PORT if tls else PORT) for address in addresses),
            username=url.username,
            password=url.password,
            tls=tls,
            qos=int(qos),
            expiry=round(_between(url, "expiry", DAY, 1, _LONGEST)),
            timeout=_between(url, "timeout", 5.0, 0.001, DAY),
            connect_timeout=_between(url, "connect_timeout", 5.0, 0.001, DAY),
            keepalive=round(_between(url, "keepalive", 20, 1, 0xFFFF)),
        )

    @property
    def location(self) -> str:
        """The servers, for people."""
        scheme = "mqtts" if self.tls else "mqtt"
        return ", ".join(f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}" for host, port in self.servers)


def _server(url: Url, address: str, default: int) -> tuple[str, int]:
    try:
        parts = urlsplit(f"mqtt://{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or port == 0:
        raise ConfigurationError(f"{url}: {address!r} is no host:port")
    return host, port or default


def _between(url: Url, option: str, default: float, least: float, most: float) -> float:
    number = url.number(option, default)
    if not least <= number <= most:
        raise ConfigurationError(f"mqtt: {option} is between {least:g} and {most:g}, not {number:g}")
    return number


def _tls(options: dict[str, str]) -> ssl.SSLContext | None:
    if not {"tls", "tls_ca", "tls_cert", "tls_key"} & set(options) or options.get("tls") in ("0", "false"):
        return None
    if ("tls_cert" in options) != ("tls_key" in options):
        raise ConfigurationError("mqtt: tls_cert and tls_key come together")
    try:
        context = ssl.create_default_context(cafile=options.get("tls_ca"))
        if "tls_cert" in options:
            context.load_cert_chain(options["tls_cert"], options["tls_key"])
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"mqtt: the TLS files can't be used: {error}") from error
    return context
