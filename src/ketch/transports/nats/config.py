"""What the NATS transport's URL may say: where NATS is, as for the broker, and how calls are carried, as for gRPC."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from ...errors import ConfigurationError
from ...grpc.tuning import Tuning
from ...nats.config import OPTIONS, Config

if TYPE_CHECKING:
    from ...url import Url

_NATS = frozenset(OPTIONS) - {"envelope"}
_CALLS = frozenset(
    ("max_message_size", "max_send_size", "max_streams", "keepalive", "keepalive_timeout", "compression")
)
_ADDRESSES = ("service", "instance")

#: Seconds of silence on a pipe before the other end is asked for a sign of life: nobody tells when a process is killed.
_KEEPALIVE = 5.0


@dataclass(frozen=True, slots=True)
class Settings:
    """A URL, read.

    Attributes:
        nats: where NATS is and who we are.
        tuning: of pipes and messages.
        shared: instances are registered under their service's subject, which NATS shares among them, and not each under
            its own.
    """

    nats: Config
    tuning: Tuning
    shared: bool

    @classmethod
    def from_url(cls, url: Url) -> Self:
        """Read and check a URL.

        Raises:
            ConfigurationError: an option is unknown or wrong.
        """
        url.only(*_NATS, *_CALLS, "address")
        address = url.options.get("address", _ADDRESSES[0])
        if address not in _ADDRESSES:
            raise ConfigurationError(f"nats: address is {' or '.join(_ADDRESSES)}, not {address!r}")
        where = {name: value for name, value in url.options.items() if name in _NATS}
        calls = {"keepalive": str(_KEEPALIVE), "keepalive_timeout": str(_KEEPALIVE)}
        calls.update({name: value for name, value in url.options.items() if name in _CALLS})
        nats = Config.from_url(replace(url, options=where))
        return cls(nats, Tuning.from_url(replace(url, options=calls)), address == _ADDRESSES[0])
