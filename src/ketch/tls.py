"""Tls: what a transport is asked to encrypt with, and whom to trust. Files and names only; nothing is read here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from .errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Instead of a file of certificates: those that the operating system trusts.
SYSTEM: Final = "system"

#: The settings, and the options of a transport's URL, that make up a `Tls`.
SERVER_OPTIONS: Final = ("server_tls_cert", "server_tls_key", "server_tls_client_ca")
CLIENT_OPTIONS: Final = ("client_tls_ca", "client_tls_cert", "client_tls_key", "client_tls_server_name")
OPTIONS: Final = (*SERVER_OPTIONS, *CLIENT_OPTIONS)


@dataclass(frozen=True, slots=True)
class ServerTls:
    """How to be called: files in PEM format.

    Attributes:
        cert: our certificate, followed by those between it and its root.
        key: its private key, without a passphrase.
        client_ca: roots; callers must present a certificate that one of them signed. "" to let anybody call.
    """

    cert: str
    key: str
    client_ca: str = ""

    def __str__(self) -> str:
        return "mutual TLS" if self.client_ca else "TLS"


@dataclass(frozen=True, slots=True)
class ClientTls:
    """How to call: files in PEM format.

    Attributes:
        ca: roots that servers' certificates must come from, or `system` for the operating system's.
        cert, key: what we present when a server asks for it, as in `ServerTls`; "" for nothing.
        server_name: what servers' certificates must be valid for; "" for the address that is called.
    """

    ca: str
    cert: str = ""
    key: str = ""
    server_name: str = ""

    def __str__(self) -> str:
        return "mutual TLS" if self.cert else "TLS"


@dataclass(frozen=True, slots=True)
class Tls:
    """Both sides; None for plain text."""

    server: ServerTls | None = None
    client: ClientTls | None = None

    @classmethod
    def read(cls, values: Mapping[str, str]) -> Self:
        """Make it from settings or from a URL's options; what is missing or empty isn't set.

        Raises:
            ConfigurationError: one is given without another that it needs.
        """
        cert, key, client_ca = (values.get(name, "") for name in SERVER_OPTIONS)
        _together("server_tls_cert", cert, "server_tls_key", key)
        if client_ca and not cert:
            raise ConfigurationError("server_tls_client_ca needs server_tls_cert: callers prove who they are over TLS")
        ca, own_cert, own_key, name = (values.get(option, "") for option in CLIENT_OPTIONS)
        _together("client_tls_cert", own_cert, "client_tls_key", own_key)
        if (own_cert or name) and not ca:
            which = "client_tls_cert" if own_cert else "client_tls_server_name"
            raise ConfigurationError(f"{which} needs client_tls_ca: a file of roots to trust, or {SYSTEM!r}")
        return cls(
            ServerTls(cert, key, client_ca) if cert else None,
            ClientTls(ca, own_cert, own_key, name) if ca else None,
        )

    def __bool__(self) -> bool:
        return self.server is not None or self.client is not None

    def __str__(self) -> str:
        """What is on, for the line at start: `TLS in, mutual TLS out`."""
        return f"{self.server or 'plain text'} in, {self.client or 'plain text'} out"

    def join(self, other: Tls, name: str) -> Tls:
        """Return both in one.

        Raises:
            ConfigurationError: they contradict each other; `name` is the transport's, for the message.
        """
        for side, one, two in (("server", self.server, other.server), ("client", self.client, other.client)):
            if one is not None and two is not None and one != two:
                raise ConfigurationError(
                    f"transport {name} has two sets of {side}_tls_… options, of its own and from the settings; keep one"
                )
        return Tls(self.server or other.server, self.client or other.client)


def _together(name: str, value: str, other: str, value_of_other: str) -> None:
    if bool(value) != bool(value_of_other):
        given, missing = (name, other) if value else (other, name)
        raise ConfigurationError(f"{given} needs {missing}: a certificate and its key come together")
