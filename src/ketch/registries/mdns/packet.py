"""DNS messages (RFC 1035 section 4), as far as multicast DNS needs them.

Names are tuples of labels, which may hold any bytes. What a peer sends is bounded in every direction: pointers lead
backwards only, and there are no more questions and records than a packet has room for.
"""

from __future__ import annotations

import ipaddress
from typing import Final, NamedTuple, TypeAlias

from ...errors import RegistryError

Name: TypeAlias = tuple[bytes, ...]

A: Final = 1
PTR: Final = 12
TXT: Final = 16
AAAA: Final = 28
SRV: Final = 33
ANY: Final = 255

_IN: Final = 1
#: The top bit of a class: of a question, that a unicast answer is welcome; of a record, that older ones are void.
_TOP: Final = 0x8000
_RESPONSE: Final = 0x8400  # and authoritative
_QR: Final = 0x8000
_OPCODE: Final = 0x7800
_HEADER: Final = 12
_LABEL, _NAME, _LABELS, _POINTER = 63, 255, 128, 0xC0
#: The last place that a pointer reaches.
_FARTHEST: Final = 0x3FFF
#: Bytes of a packet, without the headers of IP and UDP (RFC 6762 section 17).
LARGEST: Final = 9_000 - 48
#: Questions and records of a packet that are read.
_MOST: Final = 1000


class Question(NamedTuple):
    """What is asked."""

    name: Name
    kind: int
    unicast: bool = False


class Srv(NamedTuple):
    """Where a service is."""

    port: int
    target: Name
    priority: int = 0
    weight: int = 0


class Record(NamedTuple):
    """What is known. `data` is a name for PTR, an `Srv`, strings for TXT, an address's text for A and AAAA."""

    name: Name
    kind: int
    ttl: int
    data: Name | Srv | str | bytes
    flush: bool = False

    @property
    def strings(self) -> tuple[bytes, ...]:
        """The strings of a TXT record, or a PTR record's labels."""
        return self.data if isinstance(self.data, tuple) and not isinstance(self.data, Srv) else ()


class Packet(NamedTuple):
    """A message; all its records, whichever section they came in."""

    questions: tuple[Question, ...] = ()
    records: tuple[Record, ...] = ()
    response: bool = False
    id: int = 0


def name(text: str) -> Name:
    """Return `_ketch._tcp.local.` as a name."""
    return tuple(part.encode() for part in text.split(".") if part)


def encode(packet: Packet) -> bytes:
    """Return a message's bytes.

    Raises:
        RegistryError: a name is too long.
    """
    flags = _RESPONSE if packet.response else 0
    counts = len(packet.questions), len(packet.records) if packet.response else 0, 0
    known = 0 if packet.response else len(packet.records)
    out = bytearray()
    for number in (packet.id, flags, counts[0], counts[1] + known, 0, 0):
        out += number.to_bytes(2)
    places: dict[Name, int] = {}
    for question in packet.questions:
        _write_name(out, question.name, places)
        out += question.kind.to_bytes(2) + (_IN | _TOP * question.unicast).to_bytes(2)
    for record in packet.records:
        _write_name(out, record.name, places)
        out += record.kind.to_bytes(2) + (_IN | _TOP * record.flush).to_bytes(2) + record.ttl.to_bytes(4)
        size_at = len(out)
        out += b"\0\0"
        _write_data(out, record, places)
        out[size_at : size_at + 2] = (len(out) - size_at - 2).to_bytes(2)
    return bytes(out)


def _write_name(out: bytearray, labels: Name, places: dict[Name, int]) -> None:
    """Write a name; what of its end was written before is pointed at (RFC 1035 section 4.1.4)."""
    if any(not 0 < len(label) <= _LABEL for label in labels) or sum(len(label) + 1 for label in labels) >= _NAME:
        raise RegistryError(f"{b'.'.join(labels)[:80]!r} is no name for DNS: 63 bytes a label, 255 in all")
    for at, label in enumerate(labels):
        place = places.get(labels[at:])
        if place is not None:
            out += (_POINTER << 8 | place).to_bytes(2)
            return
        if len(out) <= _FARTHEST:
            places[labels[at:]] = len(out)
        out.append(len(label))
        out += label
    out.append(0)


def _write_data(out: bytearray, record: Record, places: dict[Name, int]) -> None:
    data = record.data
    if isinstance(data, Srv):
        out += data.priority.to_bytes(2) + data.weight.to_bytes(2) + data.port.to_bytes(2)
        _write_name(out, data.target, {})  # plain resolvers don't look for a pointer here (RFC 6762 section 18.14)
    elif isinstance(data, str):
        out += ipaddress.ip_address(data).packed
    elif isinstance(data, bytes):
        out += data
    elif record.kind == PTR:
        _write_name(out, data, places)
    else:
        out += _strings(data)


def _strings(strings: tuple[bytes, ...]) -> bytes:
    return b"".join(bytes((len(one),)) + one for one in strings) or b"\0"


def decode(data: bytes) -> Packet:
    """Read a message.

    Raises:
        RegistryError: it is none, or holds more than can be meant.
    """
    try:
        return _Reading(data).packet()
    except (IndexError, ValueError) as error:
        raise RegistryError(f"no DNS message: {error}") from None


class _Reading:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = _HEADER

    def packet(self) -> Packet:
        data = self._data
        if len(data) < _HEADER:
            raise ValueError("it is too short")
        id_, flags, questions, *records = (self._two(at) for at in range(0, _HEADER, 2))
        if flags & _OPCODE or questions + sum(records) > _MOST:
            raise ValueError("another operation, or too many records")
        asked = tuple(self._question() for _ in range(questions))
        told = tuple(self._record() for _ in range(sum(records)))
        return Packet(asked, told, bool(flags & _QR), id_)

    def _two(self, at: int) -> int:
        if at + 2 > len(self._data):
            raise ValueError("it is cut off")
        return int.from_bytes(self._data[at : at + 2])

    def _question(self) -> Question:
        labels = self._read_name()
        kind, class_ = self._two(self._at), self._two(self._at + 2)
        self._at += 4
        return Question(labels, kind, bool(class_ & _TOP))

    def _record(self) -> Record:
        labels = self._read_name()
        kind, class_, high, low, size = (self._two(self._at + 2 * place) for place in range(5))
        begin = self._at + 10
        end = begin + size
        if end > len(self._data):
            raise ValueError("a record is cut off")
        self._at = end
        return Record(labels, kind, high << 16 | low, self._content(kind, begin, end), bool(class_ & _TOP))

    def _content(self, kind: int, begin: int, end: int) -> Name | Srv | str | bytes:
        data = self._data
        if kind == PTR:
            return self._name_at(begin)[0]
        if kind == SRV:
            if end - begin < 7:  # noqa: PLR2004 - three numbers and a root
                raise ValueError("an SRV record is cut off")
            return Srv(self._two(begin + 4), self._name_at(begin + 6)[0], self._two(begin), self._two(begin + 2))
        if kind == TXT:
            return _split(data[begin:end])
        if kind in (A, AAAA) and end - begin == (4 if kind == A else 16):
            return str(ipaddress.ip_address(data[begin:end]))
        return data[begin:end]

    def _read_name(self) -> Name:
        labels, self._at = self._name_at(self._at)
        return labels

    def _name_at(self, at: int) -> tuple[Name, int]:
        """Return the name that begins there, and where what follows it begins."""
        labels: list[bytes] = []
        after, size = 0, 0
        while True:
            length = self._data[at]
            if length & _POINTER == _POINTER:
                to = self._two(at) & 0x3FFF
                if to >= at:
                    raise ValueError("a name points forwards")
                after, at = after or at + 2, to
                continue
            if length > _LABEL:
                raise ValueError("a label is too long")
            if not length:
                return tuple(labels), after or at + 1
            label = self._data[at + 1 : at + 1 + length]
            size += length + 1
            if len(label) != length or size > _NAME or len(labels) >= _LABELS:
                raise ValueError("a name is too long or cut off")
            labels.append(label)
            at += 1 + length


def _split(data: bytes) -> tuple[bytes, ...]:
    strings, at = [], 0
    while at < len(data):
        length = data[at]
        strings.append(data[at + 1 : at + 1 + length])
        at += 1 + length
    return tuple(strings)
