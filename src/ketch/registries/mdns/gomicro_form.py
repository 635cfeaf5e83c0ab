"""go-micro's form (registry/mdns_registry.go and util/mdns of go-micro v5).

    <service>.micro          PTR   <node id>.<service>.micro
    <node id>.<service>.micro   SRV, A;   TXT   hex(zlib(JSON of Service, Version, Endpoints, Metadata)) in pieces
    _services.micro          PTR   <service>._services.micro

Its nodes tell of themselves when they start and answer by unicast whoever asks, so they are asked again and again. A
node's records never change once it has registered.
"""

from __future__ import annotations

import binascii
import ipaddress
import socket
import zlib
from typing import TYPE_CHECKING, Final

import msgspec

from ...errors import RegistryError
from .. import gomicro
from .forms import LARGEST, Form
from .packet import AAAA, PTR, SRV, TXT, A, Name, Question, Record, Srv, name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ...registry import Instance

_TTL: Final = 120
_LISTED_PORT: Final = 9999
_PIECE: Final = 255
#: What a node's TXT may unpack to.
_UNPACKED: Final = 1024 * 1024


class _Txt(msgspec.Struct, rename="pascal"):
    service: str = ""
    version: str = ""
    endpoints: list[gomicro.Endpoint] | None = None
    metadata: dict[str, str] | None = None


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_Txt)


class GoMicro(Form):
    """As go-micro tells of its services."""

    polls = True

    def __init__(self, domain: str) -> None:
        self._domain = name(domain)
        self._list = (b"_services", *self._domain)
        self._host = name(socket.gethostname())

    def label(self, instance: Instance) -> Name:
        """Return `<node id>.<service>.micro`."""
        return (*name(instance.id), *name(instance.service), *self._domain)

    def tell(self, instance: Instance, ttl: int) -> tuple[Record, ...]:
        """Return the service's PTR, SRV, address and TXT, and its place in the list."""
        host, port = _place(instance)
        service, label = (*name(instance.service), *self._domain), self.label(instance)
        ttl = min(_TTL, ttl) if not ttl else _TTL
        made = gomicro.service(instance, "mdns")
        node = (made.nodes or [gomicro.Node()])[0]
        txt = binascii.hexlify(zlib.compress(_encoder.encode(_Txt(made.name, made.version, [], node.metadata))))
        if len(txt) > LARGEST:
            raise RegistryError(f"instance {instance.id!r}: its record has {len(txt)} bytes, more than {LARGEST}")
        listed = (*name(instance.service), *self._list)
        return (
            Record(service, PTR, ttl, label),
            Record(label, SRV, ttl, Srv(port, self._host, 10, 1)),
            Record(self._host, AAAA if ":" in host else A, ttl, host),
            Record(label, TXT, ttl, tuple(txt[at : at + _PIECE] for at in range(0, len(txt), _PIECE))),
            Record(self._list, PTR, ttl, listed),
            Record(listed, SRV, ttl, Srv(_LISTED_PORT, self._host, 10, 1)),
        )

    def ask(self, wanted: Iterable[str | None]) -> list[Question]:
        """Return a question for each name, and for the list of services: a name may be a contract's."""
        named = [Question((*name(one), *self._domain), PTR) for one in wanted if one]
        return [*named, Question(self._list, PTR)]  # an instance answers the first that it can

    def answer(self, question: Question, told: tuple[Record, ...]) -> tuple[Record, ...]:
        """Keep a service and its place in the list apart: its clients take all that comes for what they asked for."""
        answer = super().answer(question, told)
        listed = question.name == self._list
        return tuple(one for one in answer if (one.name[-len(self._list) :] == self._list) is listed)

    def listed(self, records: tuple[Record, ...]) -> set[str]:
        """Return the services that a list names."""
        return {
            b".".join(one.strings[: -len(self._list)]).decode("utf-8", "replace")
            for one in records
            if one.kind == PTR and one.name == self._list and one.ttl
        }

    def read(self, records: tuple[Record, ...]) -> Mapping[Name, tuple[Instance | None, int]]:
        """Read the TXT records, with the SRV and address records beside them."""
        ports = {one.name: one.data.port for one in records if isinstance(one.data, Srv)}
        hosts = [one.data for one in records if isinstance(one.data, str)]
        found: dict[Name, tuple[Instance | None, int]] = {}
        for one in records:
            if one.kind != TXT or one.name[-len(self._domain) :] != self._domain:
                continue
            if not one.ttl:
                found[one.name] = None, 0
            elif one.name in ports and hosts:
                found[one.name] = self._instance(one.name, one.strings, hosts[0], ports[one.name]), one.ttl
        return found

    def _instance(self, label: Name, pieces: tuple[bytes, ...], host: str, port: int) -> Instance:
        txt = _unpack(b"".join(pieces))
        service = name(txt.service)
        id_ = b".".join(label[: -len(service) - len(self._domain)]).decode("utf-8", "replace")
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        node = gomicro.Node(id_, address, txt.metadata)
        found = gomicro.instances(gomicro.Service(txt.service, txt.version, None, None, [node]))
        if not found:
            raise RegistryError(f"{label!r} tells of no node")
        return found[0]


def _unpack(txt: bytes) -> _Txt:
    try:
        unpacking = zlib.decompressobj()
        data = unpacking.decompress(binascii.unhexlify(txt), _UNPACKED)
        if unpacking.unconsumed_tail:
            raise RegistryError("a record of go-micro's unpacks to more than a mebibyte")
        return _decoder.decode(data)
    except (binascii.Error, zlib.error, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise RegistryError(f"no record of go-micro's: {error}") from error


def _place(instance: Instance) -> tuple[str, int]:
    host, _, port = instance.address.rpartition(":")
    try:
        return str(ipaddress.ip_address(host.strip("[]"))), int(port)
    except ValueError:
        raise RegistryError(
            f"instance {instance.id!r}: go-micro's form carries an IP address and a port, not {instance.address!r}"
        ) from None
