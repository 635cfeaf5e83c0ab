"""Journal: requests as they were carried out, in a file, to be carried out again."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_HEAD = struct.Struct(">BI")


class Journal:
    """A file of records: which kind, how long, the message."""

    def __init__(self, file: Path, kinds: tuple[Any, ...]) -> None:
        self._path = file
        self._kinds = kinds
        self._numbers = {kind: number for number, kind in enumerate(kinds)}
        self._file = file.open("ab", buffering=0)  # the system has it when `write` returns: a SIGKILL takes nothing

    def read(self) -> Iterator[Any]:
        """Yield the messages; half a record at the end was never confirmed."""
        data = self._path.read_bytes()
        at = 0
        while at + _HEAD.size <= len(data):
            number, length = _HEAD.unpack_from(data, at)
            at += _HEAD.size
            if at + length > len(data):
                return
            yield self._kinds[number].FromString(data[at : at + length])
            at += length

    def write(self, message: Any) -> None:
        """Keep a message."""
        data = message.SerializeToString()
        self._file.write(_HEAD.pack(self._numbers[type(message)], len(data)) + data)
