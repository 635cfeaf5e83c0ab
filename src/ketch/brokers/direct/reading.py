"""Batches as they are read: what a publisher's events share is recognized by its bytes, and parsed once.

`Encoder` writes of each event its id, a block that all of its publisher's have in common, its time and its body. A
batch that looks like that is taken apart by position; any other batch, of whatever writer, is parsed as the protobuf
message that it is. Either way the whole of it is checked before anything of it is handed over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from ...message import LazyHeaders, Message
from .direct_pb2 import Batch, CloudEvent
from .wire import Encoder, headers_of, messages

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Publishers' blocks that are remembered, the latest first; looking through them costs a comparison each.
_KNOWN: Final = 8

# Tags, as in wire.py, and the highest length of one byte.
_TOPIC, _SUBSCRIPTION, _EVENTS = 0x0A, 0x12, 0x1A
_EVENT, _ID, _ATTRIBUTE, _BINARY = 0x0A, 0x0A, 0x2A, 0x32
_HIGH: Final = 0x80
_TIME: Final = b"\x0a\x04time"


#: Where an event's parts are: id, its end, time, body, its end.
Place: TypeAlias = tuple[int, int, int, int, int]


class Origin:
    """What the events of one publisher share.

    Attributes:
        block: the bytes.
        headers: what they say.
    """

    __slots__ = ("block", "headers")

    def __init__(self, block: bytes, headers: dict[str, str]) -> None:
        self.block = block
        self.headers = headers


@dataclass(frozen=True, slots=True)
class Arrival:
    """A batch as it came: whose it is, how many events, and how to make their messages."""

    topic: str
    subscriptions: tuple[str, ...]
    count: int
    source: Batch | _Cut

    def messages(self) -> Iterator[Message] | list[Message]:
        """Return its messages, made anew each time."""
        return messages(self.source) if isinstance(self.source, Batch) else self.source.messages(self.topic)


@dataclass(frozen=True, slots=True)
class _Cut:
    """A batch that was taken apart, and where the parts of its events are."""

    data: bytes
    origin: Origin
    at: list[Place]

    def messages(self, topic: str) -> Iterator[Message]:
        data, origin = self.data, self.origin
        for place in self.at:
            yield Message(topic, _CutHeaders(origin, data, place), data[place[3] : place[4]])


class _CutHeaders(LazyHeaders):
    __slots__ = ("_data", "_place", "origin")

    def __init__(self, origin: Origin, data: bytes, place: Place) -> None:
        self.origin = origin
        self._data = data
        self._place = place
        self._all = None

    def get(self, name: str, default: str | None = None) -> str | None:  # type: ignore[override]
        shared = self.origin.headers  # type: ignore[attr-defined]  # the slot holds an Origin
        return shared[name] if name in shared else self._made().get(name, default)

    def _parse(self) -> dict[str, str]:
        data, (id_, id_end, time, _, _) = self._data, self._place
        own = CloudEvent.FromString(data[time : time + 2 + data[time + 1]])
        said = headers_of(own)
        said["ce-id"] = data[id_:id_end].decode("utf-8", "replace")
        return {**self.origin.headers, **said}  # type: ignore[attr-defined]  # as above


class Reader:
    """Reads the batches of one process."""

    def __init__(self) -> None:
        self._known: list[Origin] = []
        self._encoder = Encoder()

    def read(self, data: bytes) -> Arrival:
        """Take a batch apart.

        Raises:
            DecodeError: it is none.
        """
        try:
            arrival = self._cut(data)
        except (IndexError, UnicodeDecodeError):
            arrival = None  # what it is then, the parser says
        if arrival is not None:
            return arrival
        batch = Batch.FromString(data)
        if batch.events:
            self._learn(batch)
        return Arrival(batch.topic, tuple(batch.subscriptions), len(batch.events), batch)

    def _learn(self, batch: Batch) -> None:
        cloud = batch.events[0].event
        headers = headers_of(cloud)
        own = {"ce-id", "ce-time"}
        if set(headers) - own != {"ce-source", "ce-type", "ce-specversion", "content-type"}:
            return
        shared = {name: value for name, value in headers.items() if name not in own}
        block = self._encoder.block(shared)
        if block and all(origin.block != block for origin in self._known):
            self._known = [Origin(block, shared), *self._known[: _KNOWN - 1]]

    def _cut(self, data: bytes) -> Arrival | None:
        topic, subscriptions = "", []
        at, end = 0, len(data)
        while at < end and (tag := data[at]) != _EVENTS:
            size, begin = _length(data, at + 1)
            at = begin + size
            if at > end:
                return None
            if tag == _TOPIC:
                topic = data[begin:at].decode()
            elif tag == _SUBSCRIPTION:
                subscriptions.append(data[begin:at].decode())
            else:
                return None
        for origin in self._known:
            places = _places(data, at, end, origin.block)
            if places is not None:
                return Arrival(topic, tuple(subscriptions), len(places), _Cut(data, origin, places))
            if at == end:
                break
        return None


def _length(data: bytes, at: int) -> tuple[int, int]:
    """Return a length and where what it measures begins; a negative one for a length of five bytes or more."""
    size = shift = 0
    for begin in range(at, at + 4):
        byte = data[begin]
        size |= (byte & 0x7F) << shift
        if byte < _HIGH:
            return size, begin + 1
        shift += 7
    raise IndexError


def _places(  # noqa: C901, PLR0912 - a call for each length would cost more than all the rest
    data: bytes, at: int, end: int, block: bytes
) -> list[Place] | None:
    """Return where the parts of each event are, None if one of them looks otherwise."""
    places: list[Place] = []
    add, skip, starts = places.append, len(block), data.startswith
    while at < end:
        if data[at] != _EVENTS:
            return None
        # Lengths of one and of two bytes are read in place: they are nearly all there are.
        size, begin = data[at + 1], at + 2
        if size >= _HIGH:
            if (high := data[begin]) < _HIGH:
                size, begin = size + (high << 7) - _HIGH, begin + 1
            else:
                size, begin = _length(data, at + 1)
        at = begin + size
        if data[begin] != _EVENT:
            return None
        size, begin = data[begin + 1], begin + 2
        if size >= _HIGH:
            if (high := data[begin]) < _HIGH:
                size, begin = size + (high << 7) - _HIGH, begin + 1
            else:
                size, begin = _length(data, begin - 1)
        id_size = data[begin + 1]
        id_ = begin + 2
        time = id_ + id_size + skip
        if begin + size != at or data[begin] != _ID or id_size >= _HIGH or not starts(block, time - skip):
            return None
        time_size = data[time + 1]
        body = time + 2 + time_size
        if data[time] != _ATTRIBUTE or time_size >= _HIGH or not starts(_TIME, time + 2) or data[body] != _BINARY:
            return None
        size = data[body + 1]
        body += 2
        if size >= _HIGH:
            size, body = _length(data, body - 1)
        if body + size != at:
            return None
        add((id_, id_ + id_size, time, body, at))
    return places if at == end else None
