"""What an NSQ URL may say."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from ...errors import ConfigurationError

if TYPE_CHECKING:
    from ...url import Url

DEFAULT_ADDRESS = "127.0.0.1:4150"
_OPTIONS = ("connect_timeout", "heartbeat", "msg_timeout", "timeout", "tls", "tls_ca", "tls_cert", "tls_key")


@dataclass(frozen=True, slots=True)
class Config:
    """`nsq://secret@host:port,host:port?option=…`.

    Attributes:
        addresses: hosts and ports of nsqds: all are subscribed to, one at a time is published to.
        secret: for nsqds that ask (`AUTH`); never to be shown.
        tls: how to secure connections; None for not at all.
        timeout: seconds that publishing and subscribing may take.
        connect_timeout: seconds to connect at start.
        msg_timeout: seconds after which nsqd delivers again what it has heard nothing of; we tell it in time.
        heartbeat: seconds between nsqd's signs of life; after two and a half of them without, it counts as gone.
    """

    addresses: tuple[tuple[str, int], ...]
    secret: str
    tls: ssl.SSLContext | None
    timeout: float
    connect_timeout: float
    msg_timeout: float
    heartbeat: float

    @classmethod
    def from_url(cls, url: Url) -> Self:
        """Read and check a URL.

        Raises:
            ConfigurationError: an option is unknown or wrong.
        """
        url.only(*_OPTIONS)
        addresses = [part.strip() for part in (url.address or DEFAULT_ADDRESS).split(",")]
        return cls(
            addresses=tuple(_address(url, address) for address in addresses),
            secret=url.password or url.username,
            tls=_tls(url.options),
            timeout=_seconds(url, "timeout", 5.0),
            connect_timeout=_seconds(url, "connect_timeout", 5.0),
            msg_timeout=_seconds(url, "msg_timeout", 60.0),
            heartbeat=_seconds(url, "heartbeat", 10.0, least=1.0),
        )

    @property
    def location(self) -> str:
        """The nsqds, for people."""
        return "nsq://" + ",".join(f"{host}:{port}" for host, port in self.addresses)


def _address(url: Url, address: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"nsq://{address}")
        if parts.hostname and parts.port != 0:
            return parts.hostname, parts.port or 4150
    except ValueError:
        pass  # said below
    raise ConfigurationError(f"{url}: {address!r} is no host:port")


def _seconds(url: Url, option: str, default: float, least: float = 0.001) -> float:
    seconds = url.number(option, default)
    if seconds < least:
        raise ConfigurationError(f"nsq: {option} must be at least {least:g} seconds, not {seconds:g}")
    return seconds


def _tls(options: dict[str, str]) -> ssl.SSLContext | None:
    if not {"tls", "tls_ca", "tls_cert", "tls_key"} & set(options) or options.get("tls") in ("0", "false"):
        return None
    if ("tls_cert" in options) != ("tls_key" in options):
        raise ConfigurationError("nsq: tls_cert and tls_key come together")
    try:
        context = ssl.create_default_context(cafile=options.get("tls_ca"))
        if "tls_cert" in options:
            context.load_cert_chain(options["tls_cert"], options["tls_key"])
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"nsq: the TLS files can't be used: {error}") from error
    return context
