"""How a message looks in Kafka: CloudEvents 1.0, Kafka protocol binding, binary mode.

Attributes are headers `ce_*`, the content type is `content-type`, the key is `partitionkey`; a publisher's metadata are
headers of their own names. A plain client reads and writes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...message import KEY, BySharedHeaders, LazyHeaders, Message, Stamped

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_PREFIX = "ce_"


class Writer:
    """Writes headers; what a publisher's events share is made once."""

    def __init__(self) -> None:
        self._shared = BySharedHeaders(lambda shared: [_header(name, value) for name, value in shared.items()])

    def headers(self, headers: Mapping[str, str]) -> list[tuple[str, bytes]]:
        """Return a message's headers as the driver takes them."""
        if type(headers) is Stamped:
            return [*self._shared[headers.shared], ("ce_id", headers.id.encode()), ("ce_time", headers.time.encode())]
        return [_header(name, value) for name, value in headers.items()]


def _header(name: str, value: str) -> tuple[str, bytes]:
    return (_PREFIX + name[3:] if name.startswith("ce-") else name), value.encode()


class RecordHeaders(LazyHeaders):
    """A record's headers, made when they are asked for."""

    __slots__ = ("_key", "_raw")

    def __init__(self, raw: Iterable[tuple[str, bytes]], key: bytes | None) -> None:
        self._raw = raw
        self._key = key
        self._all = None

    def get(self, name: str, default: Any = None) -> Any:
        """Return a header's value."""
        if self._all is not None:
            return self._all.get(name, default)
        if name == KEY:
            return default if self._key is None else self._key.decode("utf-8", "replace")
        wanted = _PREFIX + name[3:] if name.startswith("ce-") else name
        for header, value in self._raw:
            if header == wanted or header.lower() == wanted:
                return _text(value)
        return default

    def _parse(self) -> dict[str, str]:
        headers: dict[str, str] = {}
        for header, value in self._raw:
            name = header.lower()
            headers.setdefault(f"ce-{name[3:]}" if name.startswith(_PREFIX) else name, _text(value))
        if self._key is not None:
            headers[KEY] = self._key.decode("utf-8", "replace")
        return headers


def _text(value: bytes | None) -> str:
    return "" if value is None else value.decode("utf-8", "replace")


def read(topic: str, record: Any) -> Message:
    """Return a record as a message."""
    return Message(topic, RecordHeaders(record.headers, record.key), record.value or b"")
