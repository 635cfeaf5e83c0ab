"""Tuning: what a URL's options set."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from ..errors import ConfigurationError
from ..http2.limits import Limits
from ..tls import OPTIONS as TLS_OPTIONS
from ..transport import MAX_MESSAGE_SIZE
from .compression import GZIP

if TYPE_CHECKING:
    from ..url import Url

_LARGEST = 2**31 - 1
_OPTIONS = (
    *(
        "max_message_size",
        "max_send_size",
        "max_streams",
        "connect_timeout",
        "keepalive",
        "keepalive_timeout",
        "compression",
    ),
    *("max_connection_age", "max_connection_age_grace", "max_connection_idle"),
    *TLS_OPTIONS,
)


@dataclass(frozen=True, slots=True)
class Tuning:
    """How connections behave; seconds and bytes.

    Attributes:
        max_message_size: of a message sent or accepted, after decompression.
        max_send_size: of a message sent, 0 for the same as `max_message_size`.
        connect_timeout: for a connection and the first sign that it speaks HTTP/2.
        keepalive: silence after which the peer is pinged, 0 for never. Stock gRPC servers take more than one ping in
            five minutes without data for abuse, hence the default.
        keepalive_timeout: how long the answer may take before the connection counts as lost.
        handshake_timeout: how long a client may take for the TLS handshake; `connect_timeout` bounds a server's.
        stall_timeout: how long a caller without a deadline may read nothing of a unary reply before it is dropped.
        max_connection_age: after which a server sends a client elsewhere, give or take a tenth, 0 for never.
        max_connection_age_grace: how long the calls in hand may take then, 0 for as long as they will.
        max_connection_idle: without a call, after which a server closes a connection, at most twice that; 0 for never.
        compression: "gzip" to compress what is sent, "" for nothing; what comes compressed is understood either way.
        assembly: bytes that the incomplete messages of one connection may take; further ones wait.
        unsent: bytes of replies that may wait for a client to take them before its further calls wait, too.
        limits: what a peer may cost us.
    """

    max_message_size: int = MAX_MESSAGE_SIZE
    max_send_size: int = 0
    connect_timeout: float = 5.0
    keepalive: float = 300.0
    keepalive_timeout: float = 20.0
    handshake_timeout: float = 10.0
    stall_timeout: float = 60.0
    max_connection_age: float = 0.0
    max_connection_age_grace: float = 0.0
    max_connection_idle: float = 0.0
    compression: str = ""
    assembly: int = 64 * 1024 * 1024
    unsent: int = 128 * 1024 * 1024
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not self.max_send_size:
            object.__setattr__(self, "max_send_size", self.max_message_size)

    @classmethod
    def from_url(cls, url: Url) -> Self:
        """Read a URL's options.

        Raises:
            ConfigurationError: one is unknown or out of its range.
        """
        url.only(*_OPTIONS)
        compression = url.options.get("compression", "")
        if compression not in {"", GZIP}:
            raise ConfigurationError(f"{url.name}: option compression={compression[:20]} must be {GZIP}")
        size = int(_between(url, "max_message_size", MAX_MESSAGE_SIZE, 1, _LARGEST))
        usual = cls()
        return cls(
            max_message_size=size,
            max_send_size=int(_between(url, "max_send_size", 0, 0, _LARGEST)),
            connect_timeout=_between(url, "connect_timeout", usual.connect_timeout, 0.001, 3600),
            keepalive=_between(url, "keepalive", usual.keepalive, 0, 1e6),
            keepalive_timeout=_between(url, "keepalive_timeout", usual.keepalive_timeout, 0.001, 3600),
            max_connection_age=_between(url, "max_connection_age", 0, 0, 1e9),
            max_connection_age_grace=_between(url, "max_connection_age_grace", 0, 0, 1e9),
            max_connection_idle=_between(url, "max_connection_idle", 0, 0, 1e9),
            compression=compression,
            assembly=max(usual.assembly, 2 * size),
            limits=Limits(max_streams=int(_between(url, "max_streams", usual.limits.max_streams, 1, _LARGEST))),
        )


def _between(url: Url, name: str, default: float, low: float, high: float) -> float:
    value = url.number(name, default)
    if not low <= value <= high:
        raise ConfigurationError(f"{url.name}: option {name}={value:g} must be between {low:g} and {high:g}")
    return value
