"""What a Kafka URL may say."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from ...errors import ConfigurationError

if TYPE_CHECKING:
    from ...url import Url

_OPTIONS: Final = (
    "timeout",
    "connect_timeout",
    "partitions",
    "replication",
    "compression",
    "sasl",
    "tls",
    "tls_ca",
    "tls_cert",
    "tls_key",
)
_COMPRESSIONS: Final = ("gzip", "snappy", "lz4", "zstd")
_MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


@dataclass(frozen=True, slots=True)
class Config:
    """`kafka://user:password@host:port,host:port?option=…`.

    Attributes:
        servers: bootstrap servers.
        login: what the driver is told of SASL and TLS; never to be shown.
        timeout: seconds that publishing, and each question, may take.
        connect_timeout: seconds to connect at start.
        partitions: of topics that are made: as many members of a group can work at a time.
        replication: how many brokers keep topics that are made.
        compression: of what is published; None for none. Whatever others chose is read.
    """

    servers: tuple[str, ...]
    login: dict[str, Any]
    timeout: float
    connect_timeout: float
    partitions: int
    replication: int
    compression: str | None

    @classmethod
    def from_url(cls, url: Url) -> Self:
        """Read and check a URL.

        Raises:
            ConfigurationError: an option is unknown or wrong.
        """
        url.only(*_OPTIONS)
        if url.path:
            raise ConfigurationError(f"kafka has no path: {url}")
        timeout, connect_timeout = url.number("timeout", 5.0), url.number("connect_timeout", 5.0)
        partitions, replication = url.number("partitions", 8), url.number("replication", 1)
        if timeout <= 0 or connect_timeout <= 0:
            raise ConfigurationError("kafka: timeout and connect_timeout are more than 0 seconds")
        if partitions < 1 or partitions != int(partitions) or replication not in range(1, 100):
            raise ConfigurationError("kafka: partitions and replication are whole numbers from 1")
        compression = url.options.get("compression")
        if compression is not None and compression not in _COMPRESSIONS:
            raise ConfigurationError(f"kafka: compression is one of {', '.join(_COMPRESSIONS)}, not {compression!r}")
        servers = tuple(part.strip() for part in (url.address or "127.0.0.1:9092").split(","))
        return cls(servers, _login(url), timeout, connect_timeout, int(partitions), int(replication), compression)

    @property
    def location(self) -> str:
        """The servers, for people."""
        return ", ".join(self.servers)


def _login(url: Url) -> dict[str, Any]:
    context = _tls(url.options)
    protocol = "SSL" if context is not None else "PLAINTEXT"
    if not url.username:
        return {"security_protocol": protocol, "ssl_context": context}
    mechanism = url.options.get("sasl", "PLAIN").upper()
    if mechanism not in _MECHANISMS:
        raise ConfigurationError(f"kafka: sasl is one of {', '.join(_MECHANISMS)}, not {mechanism!r}")
    return {
        "security_protocol": f"SASL_{protocol}",
        "ssl_context": context,
        "sasl_mechanism": mechanism,
        "sasl_plain_username": url.username,
        "sasl_plain_password": url.password,
    }


def _tls(options: dict[str, str]) -> ssl.SSLContext | None:
    if not {"tls", "tls_ca", "tls_cert", "tls_key"} & set(options) or options.get("tls") in ("0", "false"):
        return None
    if ("tls_cert" in options) != ("tls_key" in options):
        raise ConfigurationError("kafka: tls_cert and tls_key come together")
    try:
        context = ssl.create_default_context(cafile=options.get("tls_ca"))
        if "tls_cert" in options:
            context.load_cert_chain(options["tls_cert"], options["tls_key"])
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"kafka: the TLS files can't be used: {error}") from error
    return context
