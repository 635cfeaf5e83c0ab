"""What a NATS URL may say."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from ..errors import ConfigurationError

if TYPE_CHECKING:
    from ..url import Url

DEFAULT_ADDRESS = "127.0.0.1:4222"
ENVELOPES = ("cloudevents", "go-micro")
#: What a connection can be told of; each plugin adds its own.
ACCESS_OPTIONS = ("timeout", "connect_timeout", "tls", "tls_ca", "tls_cert", "tls_key", "credentials")
OPTIONS = (*ACCESS_OPTIONS, "envelope")


@dataclass(frozen=True, slots=True)
class Access:
    """`nats://user:password@host:port,host:port?option=…`; a user without a password is a token.

    Attributes:
        servers: URLs without credentials.
        login: what the driver is told of user, password, token, credentials file and TLS; never to be shown.
        timeout: seconds that one wait for the server may take.
        connect_timeout: seconds to connect at start.
    """

    servers: tuple[str, ...]
    login: dict[str, Any] = field(repr=False)
    timeout: float
    connect_timeout: float

    @classmethod
    def of(cls, url: Url) -> Access:
        """Read and check what a URL says of the connection.

        Raises:
            ConfigurationError: an option is wrong.
        """
        addresses = [part.strip() for part in (url.address or DEFAULT_ADDRESS).split(",")]
        for address in addresses:
            _check_address(url, address)
        return Access(
            servers=tuple(f"nats://{address}" for address in addresses),
            login=_login(url),
            timeout=_seconds(url, "timeout"),
            connect_timeout=_seconds(url, "connect_timeout"),
        )

    @property
    def location(self) -> str:
        """The servers, for people."""
        return ", ".join(self.servers)


@dataclass(frozen=True, slots=True)
class Config(Access):
    """How a broker is set: `timeout` bounds its wait for a connection that was lost.

    Attributes:
        envelope: `cloudevents` (native headers) or `go-micro` (its JSON).
    """

    envelope: str

    @classmethod
    def from_url(cls, url: Url) -> Self:
        """Read and check a URL.

        Raises:
            ConfigurationError: an option is unknown or wrong.
        """
        url.only(*OPTIONS)
        envelope = url.options.get("envelope", ENVELOPES[0])
        if envelope not in ENVELOPES:
            raise ConfigurationError(f"nats: envelope is {' or '.join(ENVELOPES)}, not {envelope!r}")
        access = Access.of(url)
        return cls(access.servers, access.login, access.timeout, access.connect_timeout, envelope)


def _check_address(url: Url, address: str) -> None:
    try:
        parts = urlsplit(f"nats://{address}")
        usable = bool(parts.hostname) and parts.port != 0  # reading the port checks it
    except ValueError:
        usable = False
    if not usable:
        raise ConfigurationError(f"{url}: {address!r} is no host:port")


def _seconds(url: Url, option: str) -> float:
    seconds = url.number(option, 5.0)
    if seconds <= 0:
        raise ConfigurationError(f"nats: {option} must be more than 0 seconds, not {seconds:g}")
    return seconds


def _login(url: Url) -> dict[str, Any]:
    login: dict[str, Any] = {}
    if url.password:
        login = {"user": url.username, "password": url.password}
    elif url.username:
        login = {"token": url.username}
    if "credentials" in url.options:
        login["user_credentials"] = url.options["credentials"]
    if tls := _tls(url.options):
        login["tls"] = tls
    return login


def _tls(options: dict[str, str]) -> ssl.SSLContext | None:
    if not {"tls", "tls_ca", "tls_cert", "tls_key"} & set(options) or options.get("tls") in ("0", "false"):
        return None
    if ("tls_cert" in options) != ("tls_key" in options):
        raise ConfigurationError("nats: tls_cert and tls_key come together")
    try:
        context = ssl.create_default_context(cafile=options.get("tls_ca"))
        if "tls_cert" in options:
            context.load_cert_chain(options["tls_cert"], options["tls_key"])
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"nats: the TLS files can't be used: {error}") from error
    return context
