"""Peer: a caller's address, and who its certificate says it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True, slots=True)
class PeerIdentity:
    """What a verified X.509 certificate says of its owner (RFC 5280); gRPC calls it the auth context.

    Attributes:
        common_name: the subject's CN, "" for none.
        subject: the subject's attributes in their order, as `("organizationName", "Example")`.
        names: the subject alternative names, as `("DNS", "shop.example")` or `("URI", "spiffe://example/shop")`.
    """

    common_name: str
    subject: tuple[tuple[str, str], ...]
    names: tuple[tuple[str, str], ...]

    @classmethod
    def read(cls, certificate: Mapping[str, Any]) -> Self:
        """Take it from a certificate as `ssl.SSLObject.getpeercert` has it."""
        subject = tuple((name, value) for part in certificate.get("subject", ()) for name, value in part)
        common_name = next((value for name, value in subject if name == "commonName"), "")
        return cls(common_name, subject, tuple(certificate.get("subjectAltName", ())))


class Peer(str):
    """An address whose owner has proved who it is; what transports make `Request.peer` where they know more of it.

    The certificate is read when it is first asked for, once a connection.
    """

    __slots__ = ("_certificate", "_identity")

    _certificate: Callable[[], Mapping[str, Any] | None]
    _identity: PeerIdentity | None

    @classmethod
    def proved(cls, address: str, certificate: Callable[[], Mapping[str, Any] | None]) -> Self:
        """Make one; `certificate` returns what was verified, None or empty for nothing."""
        peer = cls(address)
        peer._certificate = certificate
        peer._identity = None
        return peer

    @property
    def identity(self) -> PeerIdentity | None:
        """Who it is, None where it did not have to say."""
        if self._identity is None and (certificate := self._certificate()):
            self._identity = PeerIdentity.read(certificate)
        return self._identity
