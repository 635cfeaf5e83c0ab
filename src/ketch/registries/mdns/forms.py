"""What an instance looks like on the wire: DNS-SD's form, and what all forms have in common.

_ketch._tcp.local                        PTR    <instance>._ketch._tcp.local
_<name>._sub._ketch._tcp.local           PTR    the same; one for the service's name and for each contract
<instance>._ketch._tcp.local             SRV    port and host;   TXT   ketch=1, then the record's JSON in pieces
"""

from __future__ import annotations

import ipaddress
import socket
from abc import ABC, abstractmethod
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from ...errors import RegistryError
from .. import record
from .packet import AAAA, ANY, PTR, SRV, TXT, A, Name, Question, Record, Srv, name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ...registry import Instance

#: Bytes of a record's JSON: a packet has 9,000 at most (RFC 6762 section 17).
LARGEST: Final = 8_000
_PIECE: Final = 255


class Form(ABC):
    """How instances are asked for, told and read.

    Attributes:
        polls: they don't tell of themselves, so they are asked again and again.
    """

    polls: bool = False

    @abstractmethod
    def label(self, instance: Instance) -> Name:
        """Return the name of an instance's own records.

        Raises:
            RegistryError: it can't be told in this form.
        """

    @abstractmethod
    def tell(self, instance: Instance, ttl: int) -> tuple[Record, ...]:
        """Return an instance's records; with a `ttl` of 0, that it leaves.

        Raises:
            RegistryError: it can't be told in this form.
        """

    @abstractmethod
    def ask(self, wanted: Iterable[str | None]) -> list[Question]:
        """Return the questions for those who answer to some names, None for all there are."""

    @abstractmethod
    def read(self, records: tuple[Record, ...]) -> Mapping[Name, tuple[Instance | None, int]]:
        """Return the instances told of, by label, with seconds to live; None for one that leaves."""

    def answer(self, question: Question, told: tuple[Record, ...]) -> tuple[Record, ...]:
        """Return those of an instance's records that answer a question, and what belongs to them."""
        asked = any(one.name == question.name and question.kind in (one.kind, ANY) for one in told)
        return told if asked else ()


class DnsSd(Form):
    """Ketch's own, which other tools read, too: `avahi-browse -r _ketch._tcp`."""

    def __init__(self, domain: str) -> None:
        self._type = (b"_ketch", b"_tcp", *name(domain))
        self._all = (b"_services", b"_dns-sd", b"_udp", *name(domain))
        self._host = (socket.gethostname().partition(".")[0].encode()[:63] or b"ketch", *name(domain))

    def label(self, instance: Instance) -> Name:
        """Return the id, or what is left of it with a hash where it is no label."""
        id_ = instance.id.encode("utf-8", "surrogatepass")
        if len(id_) > 63 or not instance.id.isprintable() or not id_:  # noqa: PLR2004 - RFC 1035 section 2.3.4
            readable = "".join(letter for letter in instance.id if letter.isalnum() and letter.isascii())[:30]
            id_ = f"{readable}-{_hash(id_)}".encode()
        return (id_, *self._type)

    def tell(self, instance: Instance, ttl: int) -> tuple[Record, ...]:
        """Return PTR records for the type and its subtypes, SRV, TXT and the address."""
        data = record.encode(instance)
        if len(data) > LARGEST:
            raise RegistryError(
                f"instance {instance.id!r}: its record has {len(data)} bytes, more than the {LARGEST} that multicast "
                "DNS carries; shorten its metadata or contracts"
            )
        label = self.label(instance)
        host, port = _host_and_port(instance.address)
        names = [self._type, *(self._subtype(one) for one in dict.fromkeys((instance.service, *instance.contracts)))]
        told = [Record(one, PTR, ttl, label) for one in names]
        told.append(Record(self._all, PTR, ttl, self._type))
        told.append(Record(label, SRV, ttl, Srv(port, self._host), flush=True))
        told.append(Record(label, TXT, ttl, (b"ketch=1", *_pieces(data)), flush=True))
        if host:
            told.append(Record(self._host, A if ":" not in host else AAAA, ttl, host))
        return tuple(told)

    def ask(self, wanted: Iterable[str | None]) -> list[Question]:
        """Return a question for each subtype, or one for the type."""
        names = list(wanted)
        if None in names:
            return [Question(self._type, PTR)]
        return [Question(self._subtype(one), PTR) for one in names if one is not None]

    def read(self, records: tuple[Record, ...]) -> Mapping[Name, tuple[Instance | None, int]]:
        """Read the TXT records; what isn't a record of ours raises `RegistryError`."""
        found: dict[Name, tuple[Instance | None, int]] = {}
        for one in records:
            if one.kind == TXT and one.name[1:] == self._type:
                said = b"".join(one.strings[1:])
                found[one.name] = (record.decode(said) if one.ttl else None), one.ttl
        return found

    def _subtype(self, wanted: str) -> Name:
        return (b"_" + _hash(wanted.encode("utf-8", "surrogatepass")).encode(), b"_sub", *self._type)


def _hash(data: bytes) -> str:
    return blake2b(data, digest_size=10).hexdigest()


def _pieces(data: bytes) -> list[bytes]:
    return [data[at : at + _PIECE] for at in range(0, len(data), _PIECE)]


def _host_and_port(address: str) -> tuple[str, int]:
    """Return what an SRV record and an address record can say of an address; our own clients read the TXT record."""
    host, _, port = address.rpartition(":")
    try:
        return str(ipaddress.ip_address(host.strip("[]"))), int(port) & 0xFFFF
    except ValueError:
        return "", 0
