"""Message: one event as it travels, independent of any broker and of any payload type.

A message is a topic, headers and a body. The headers hold the CloudEvents 1.0 context attributes under the
names of the HTTP and NATS bindings (`ce-id`, `ce-source`, `ce-specversion`, `ce-type`, `ce-time`, and
`content-type` for `datacontenttype`), and beside them the publisher's own metadata. A broker with another
binding (Kafka `ce_`, AMQP `cloudEvents:`) renames the prefix at its edge. Names are lower case.
"""

from __future__ import annotations

import itertools
import os
import time
from abc import abstractmethod
from collections.abc import Callable, ItemsView, Iterator, KeysView, Mapping
from typing import TYPE_CHECKING, Generic, TypeVar

from msgspec import Struct

from .errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable

CONTENT_TYPE = "content-type"

#: CloudEvents' partitioning extension: events of one key belong together, in order.
KEY = "ce-partitionkey"

#: Set on an event that is published again for one group alone, which the others skip.
ONLY_GROUP = "ketch-only-group"

#: Set on a dead letter, and on one that is published again: what tells it from the event that it was.
EDITION = "ketch-edition"

SPEC_VERSION = "1.0"

V = TypeVar("V")


class Message(Struct, eq=False):
    """One event: `topic`, `headers` (lower-case names) and `body`. Treat it as immutable."""

    # A struct, as Delivery is: there is one for each event, and C makes it in a third of the time.
    topic: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def id(self) -> str:
        """`ce-id`, unique within the source; "" when a plain client of the broker sent none."""
        return self.headers.get("ce-id", "")

    @property
    def type(self) -> str:
        """`ce-type`, for protobuf the full name of the message type."""
        return self.headers.get("ce-type", "")

    @property
    def source(self) -> str:
        """`ce-source`, the publishing service."""
        return self.headers.get("ce-source", "")

    @property
    def time(self) -> str:
        """`ce-time`, RFC 3339."""
        return self.headers.get("ce-time", "")

    @property
    def content_type(self) -> str:
        """The body's media type, "" when none is said."""
        return self.headers.get(CONTENT_TYPE, "")

    @property
    def key(self) -> str:
        """`ce-partitionkey`: events with the same one are handled in order; "" for none."""
        return self.headers.get(KEY, "")

    @property
    def dedup_id(self) -> str:
        """What a broker may tell a repeated publication by: source and id, which CloudEvents demands to be unique."""
        edition = self.headers.get(EDITION)
        name = f"{self.source}/{self.id}"
        return f"{name}/{edition}" if edition else name

    @property
    def metadata(self) -> dict[str, str]:
        """The publisher's own headers: all but the CloudEvents attributes, the content type and ketch's own."""
        return {k: v for k, v in self.headers.items() if not k.startswith(("ce-", "ketch-")) and k != CONTENT_TYPE}

    def __repr__(self) -> str:
        # Neither headers nor body: they may hold what must not reach a log.
        return f"<Message {self.id or '?'} on {self.topic}, {len(self.body)} bytes>"


class LazyHeaders(Mapping[str, str]):
    """Headers as they came, parsed when somebody asks. A subclass answers cheap questions in `get` by itself."""

    __slots__ = ("_all",)

    _all: dict[str, str] | None

    #: What stands for the headers that this event shares with others of its publisher, the same object for each of
    #: them, so that what follows from these headers need be found out only once; None where that isn't known.
    origin: object = None

    @abstractmethod
    def _parse(self) -> dict[str, str]:
        """Return all headers."""

    def _made(self) -> dict[str, str]:
        if self._all is None:
            self._all = self._parse()
        return self._all

    def __getitem__(self, name: str) -> str:
        return self._made()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._made())

    def __len__(self) -> int:
        return len(self._made())

    def keys(self) -> KeysView[str]:
        """Return the names."""
        return self._made().keys()

    def items(self) -> ItemsView[str, str]:
        """Return names and values."""
        return self._made().items()


class Stamped(LazyHeaders):
    """The headers of an event that is published: those that its publisher's events share, and its own id and time.

    Attributes:
        shared: the shared ones, the same object for each event of a publisher, which nobody changes.
        id, time: `ce-id` and `ce-time`.
    """

    __slots__ = ("id", "shared", "time")

    def __init__(self, shared: Mapping[str, str]) -> None:
        self.shared = shared
        self.id = new_id()
        self.time = now()
        self._all = None

    def get(self, name: str, default: str | None = None) -> str | None:  # type: ignore[override]
        """Return a header's value."""
        return self.id if name == "ce-id" else self.time if name == "ce-time" else self.shared.get(name, default)

    def _parse(self) -> dict[str, str]:
        return {**self.shared, "ce-id": self.id, "ce-time": self.time}


class BySharedHeaders(Generic[V]):
    """What a plugin made of shared headers, so that it is made once for each publisher; bounded."""

    def __init__(self, make: Callable[[Mapping[str, str]], V], most: int = 1024) -> None:
        self._make = make
        self._most = most
        self._made: dict[int, tuple[Mapping[str, str], V]] = {}

    def __getitem__(self, shared: Mapping[str, str]) -> V:
        entry = self._made.get(id(shared))
        if entry is not None:  # its mapping is held, so the id is still that one's
            return entry[1]
        made = self._make(shared)
        if len(self._made) < self._most:
            self._made[id(shared)] = (shared, made)
        return made


def event_headers(*, source: str, type: str, content_type: str) -> dict[str, str]:  # noqa: A002 - CloudEvents' word
    """Return the headers that every event of one publisher shares; `stamp` adds those of the single event."""
    return {
        "ce-specversion": SPEC_VERSION,
        "ce-source": source,
        "ce-type": type,
        CONTENT_TYPE: content_type,
    }


def stamp(shared: Mapping[str, str]) -> dict[str, str]:
    """Return `shared` with a fresh `ce-id` and the current `ce-time`."""
    return {**shared, "ce-id": new_id(), "ce-time": now()}


def own_metadata(metadata: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    """Yield a publisher's metadata as headers: names in lower case, values without white space around them.

    Raises:
        ConfigurationError: a name is reserved or no header name, or a value holds a control character.
    """
    for name, value in metadata.items():
        lower = name.lower()
        if lower.startswith(("ce-", "ketch-")) or lower == CONTENT_TYPE:
            raise ConfigurationError(f"metadata {name!r} is reserved for the event itself")
        if not lower or not lower.isascii() or not lower.replace("-", "").replace("_", "").replace(".", "").isalnum():
            raise ConfigurationError(f"metadata {name!r} is no header name: letters, digits, '-', '_' and '.'")
        if not value.isprintable():
            raise ConfigurationError(f"metadata {name!r} has a value with a control character")
        yield lower, value.strip()


class _Ids:
    """Ids that are unique across processes: eight random bytes of the process, then a counter."""

    # A UUID costs a system call per event; this costs one per process, and CloudEvents asks for
    # uniqueness within the source only.
    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        self._prefix = os.urandom(8).hex()
        self._count = itertools.count()

    def next(self) -> str:
        return f"{self._prefix}{next(self._count):08x}"


_ids = _Ids()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_ids.renew)


#: Return a fresh event id.
new_id = _ids.next


class _Clock:
    """RFC 3339 in milliseconds; formatted once a millisecond, the part up to the second once a second."""

    def __init__(self) -> None:
        self._millisecond = self._second = -1
        self._text = self._to_the_second = ""

    def now(self) -> str:
        millisecond = time.time_ns() // 1_000_000
        if millisecond != self._millisecond:
            self._millisecond = millisecond
            self._text = self._format(*divmod(millisecond, 1000))
        return self._text

    def _format(self, second: int, rest: int) -> str:
        if second != self._second:
            self._second = second
            self._to_the_second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._to_the_second}.{rest:03d}Z"


now = _Clock().now
