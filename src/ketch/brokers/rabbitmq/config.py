"""What a RabbitMQ URL may say."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import urlsplit

from ...errors import ConfigurationError

if TYPE_CHECKING:
    from ...url import Url

_OPTIONS = (
    "exchange",
    "timeout",
    "connect_timeout",
    "heartbeat",
    "delivery_limit",
    "tls",
    "tls_ca",
    "tls_cert",
    "tls_key",
)
_TLS_OPTIONS = {"tls", "tls_ca", "tls_cert", "tls_key"}

#: Deliveries of one message after which the server takes it for poison; RabbitMQ 4 has the same default.
DELIVERY_LIMIT: Final = 20

#: An exchange's name: AMQP's own characters, and room for what is made of it.
_EXCHANGE = re.compile(r"[A-Za-z0-9._:-]{1,60}")

_MAX_HEARTBEAT = 65_535


@dataclass(frozen=True, slots=True)
class Config:
    """`rabbitmq://user:password@host:port,host:port/vhost?option=…`.

    Attributes:
        addresses: hosts and ports, tried in turn.
        vhost: the virtual host, `/` by default.
        username, password: `guest` both by default; never to be shown.
        tls: what to encrypt with; None for plain text.
        exchange: the topic exchange that carries all events.
        timeout: seconds that publishing, subscribing and settling wait for the server.
        connect_timeout: seconds to connect.
        heartbeat: seconds between signs of life; after two without one a connection counts as lost.
        delivery_limit: deliveries after which the server itself puts a message with the dead letters, 0 for never.
    """

    addresses: tuple[tuple[str, int], ...]
    vhost: str
    username: str = field(repr=False)
    password: str = field(repr=False)
    tls: ssl.SSLContext | None
    exchange: str
    timeout: float
    connect_timeout: float
    heartbeat: int
    delivery_limit: int

    @classmethod
    def from_url(cls, url: Url) -> Self:
        """Read and check a URL.

        Raises:
            ConfigurationError: an option is unknown or wrong.
        """
        url.only(*_OPTIONS)
        exchange = url.options.get("exchange", "ketch")
        if _EXCHANGE.fullmatch(exchange) is None:
            raise ConfigurationError(
                f"rabbitmq: exchange={exchange!r} isn't 1 to 60 letters, digits, '.', '_', ':', '-'"
            )
        tls = _tls(url.options)
        default = 5672 if tls is None else 5671
        return cls(
            addresses=tuple(_address(url, part.strip(), default) for part in (url.address or "127.0.0.1").split(",")),
            vhost=url.path or "/",
            username=url.username or "guest",
            password=url.password if url.username else "guest",
            tls=tls,
            exchange=exchange,
            timeout=_seconds(url, "timeout", 5.0),
            connect_timeout=_seconds(url, "connect_timeout", 5.0),
            heartbeat=_whole(url, "heartbeat", 10, 1, _MAX_HEARTBEAT),
            delivery_limit=_whole(url, "delivery_limit", DELIVERY_LIMIT, 0, 1_000_000),
        )

    @property
    def location(self) -> str:
        """The servers and the virtual host, for people."""
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.addresses)
        return f"rabbitmq://{hosts}/{'' if self.vhost == '/' else self.vhost}"


def _address(url: Url, address: str, default: int) -> tuple[str, int]:
    try:
        parts = urlsplit(f"amqp://{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or port == 0:
        raise ConfigurationError(f"{url}: {address!r} is no host:port")
    return host, port or default


def _seconds(url: Url, option: str, default: float) -> float:
    seconds = url.number(option, default)
    if seconds <= 0:
        raise ConfigurationError(f"rabbitmq: {option} must be more than 0 seconds, not {seconds:g}")
    return seconds


def _whole(url: Url, option: str, default: int, least: int, most: int) -> int:
    number = url.number(option, default)
    if number != int(number) or not least <= number <= most:
        raise ConfigurationError(f"rabbitmq: {option} is a whole number from {least} to {most}, not {number:g}")
    return int(number)


def _tls(options: dict[str, str]) -> ssl.SSLContext | None:
    if not _TLS_OPTIONS & set(options) or options.get("tls") in ("0", "false"):
        return None
    if ("tls_cert" in options) != ("tls_key" in options):
        raise ConfigurationError("rabbitmq: tls_cert and tls_key come together")
    try:
        context = ssl.create_default_context(cafile=options.get("tls_ca"))
        if "tls_cert" in options:
            context.load_cert_chain(options["tls_cert"], options["tls_key"])
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"rabbitmq: the TLS files can't be used: {error}") from error
    return context
