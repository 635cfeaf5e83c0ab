"""Header compression (RFC 7541).

Decoding is where the time of a small call goes, so whole blocks are remembered: a block that leaves the dynamic
table as it was decodes to the same fields until the table changes. Encoding uses no dynamic table at all: what
we send is the same from call to call, is encoded once and kept, and can be sent in any order.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from hpack.exceptions import HPACKError
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

from ..errors import ProtocolError
from .codes import ErrorCode
from .settings import DEFAULT_TABLE

if TYPE_CHECKING:
    from collections.abc import Iterable

Field: TypeAlias = tuple[str, str]

#: RFC 7541 appendix A, from index 1.
_STATIC: Final[tuple[Field, ...]] = tuple(
    (name.decode(), value.decode()) for name, value in ((b"", b""), *HeaderTable.STATIC_TABLE)
)
_FIRST_DYNAMIC: Final = len(_STATIC)
_EXACT: Final = {field: index for index, field in reversed(list(enumerate(_STATIC))) if index and field[1]}
_NAMES: Final = {field[0]: index for index, field in reversed(list(enumerate(_STATIC))) if index}
#: Never put into anybody's table (RFC 7541 section 7.1.3).
_SECRET: Final = frozenset({"authorization", "cookie", "proxy-authorization", "set-cookie"})

_OVERHEAD: Final = 32  # bytes that section 4.1 adds to each entry
_REMEMBERED: Final = 128  # Huffman-coded strings
_REMEMBERED_SIZE: Final = 1024  # bytes of each, and of a block
_REMEMBERED_LISTS: Final = 1_048_576  # bytes, as section 4.1 counts them, of all lists whose blocks are remembered


class Headers:
    """A decoded header list.

    Attributes:
        fields: names and values in order; values are latin-1, so any bytes survive.
        oversized: the list is over the limit and `fields` is cut short.
        memo: what the layer above made of it; kept with the block, so it is worked out once.
        problem: why this is no valid request or response; None until somebody looked.
        trailer_problem: the same for trailers.
        length: bytes of body that are announced, -1 for none; known once somebody looked for problems.
    """

    __slots__ = ("fields", "length", "memo", "oversized", "problem", "trailer_problem")

    def __init__(self, fields: tuple[Field, ...], *, oversized: bool = False) -> None:
        self.fields = fields
        self.oversized = oversized
        self.memo: Any = None
        self.problem: str | None = None
        self.trailer_problem: str | None = None
        self.length = -1


class Decoder:
    """The decoding side of one connection. Blocks must be decoded in the order they came, each one.

    Attributes:
        blocks: those that would decode to the same again; they need not be decoded.
    """

    def __init__(self, max_list: int) -> None:
        self._max_list = max_list
        self.blocks: dict[bytes, Headers] = {}
        self._kept = 0
        self._strings: dict[bytes, str] = {}
        self._table: deque[Field] = deque()
        self._size = 0
        self._max_size = DEFAULT_TABLE

    def decode(self, block: bytes) -> Headers:
        """Return a block's fields; the same object for the same block while the table stays as it is.

        Raises:
            ProtocolError: COMPRESSION_ERROR; the connection's table is lost.
        """
        return self.blocks.get(block) or self._decode(block)

    def _decode(self, block: bytes) -> Headers:
        try:
            headers, changed, size = self._read(block)
        except (IndexError, HPACKError) as error:
            raise ProtocolError("header block is broken", ErrorCode.COMPRESSION_ERROR) from error
        self._kept += size + len(block)
        if changed or self._kept > _REMEMBERED_LISTS:
            self.blocks.clear()
            self._kept = 0
        if not changed and len(block) <= _REMEMBERED_SIZE:
            self.blocks[block] = headers
        return headers

    def _read(self, block: bytes) -> tuple[Headers, bool, int]:
        fields: list[Field] = []
        at, end, size, changed = 0, len(block), 0, False
        while at < end:
            byte = block[at]
            if byte & 0x80:
                index, at = _integer(block, at, 0x7F)
                field = self._entry(index)
            elif byte & 0xE0 == 0x20:  # noqa: PLR2004 - section 6.3
                at = self._resize(block, at, first=not size)
                changed = True
                continue
            else:
                field, at = self._literal(block, at, 0x3F if byte & 0x40 else 0x0F)
                if byte & 0x40:
                    self._add(field)
                    changed = True
            size += len(field[0]) + len(field[1]) + _OVERHEAD
            if size <= self._max_list:
                fields.append(field)
        return Headers(tuple(fields), oversized=size > self._max_list), changed, min(size, self._max_list)

    def _literal(self, block: bytes, at: int, mask: int) -> tuple[Field, int]:
        index, at = _integer(block, at, mask)
        if index:
            name = self._entry(index)[0]
        else:
            name, at = self._string(block, at)
        value, at = self._string(block, at)
        return (name, value), at

    def _entry(self, index: int) -> Field:
        if index < _FIRST_DYNAMIC:
            if not index:
                raise IndexError("index 0")
            return _STATIC[index]
        return self._table[index - _FIRST_DYNAMIC]

    def _string(self, block: bytes, at: int) -> tuple[str, int]:
        huffman = block[at] & 0x80
        size, at = _integer(block, at, 0x7F)
        end = at + size
        if end > len(block):
            raise IndexError("string is cut off")
        raw = block[at:end]
        return self._expand(raw) if huffman else raw.decode("latin-1"), end

    def _expand(self, raw: bytes) -> str:
        text = self._strings.get(raw)
        if text is None:
            text = decode_huffman(raw).decode("latin-1")
            if len(raw) <= _REMEMBERED_SIZE:
                if len(self._strings) >= _REMEMBERED:
                    self._strings.clear()
                self._strings[raw] = text
        return text

    def _add(self, field: Field) -> None:
        self._table.appendleft(field)
        self._size += len(field[0]) + len(field[1]) + _OVERHEAD
        self._evict()

    def _evict(self) -> None:
        while self._size > self._max_size:
            name, value = self._table.pop()
            self._size -= len(name) + len(value) + _OVERHEAD

    def _resize(self, block: bytes, at: int, *, first: bool) -> int:
        size, at = _integer(block, at, 0x1F)
        if not first or size > DEFAULT_TABLE:
            raise ProtocolError("misplaced or too large table size update", ErrorCode.COMPRESSION_ERROR)
        self._max_size = size
        self._evict()
        return at


#: The first block after the peer shrank its table has to start with this (RFC 7541 section 4.2).
NO_TABLE: Final = b"\x20"


def encode(fields: Iterable[Field]) -> bytes:
    """Return a header block that touches no dynamic table."""
    return b"".join(_field(name, value) for name, value in fields)


def _field(name: str, value: str) -> bytes:
    exact = _EXACT.get((name, value))
    if exact is not None:
        return bytes((0x80 | exact,))
    first = 0x10 if name in _SECRET else 0
    index = _NAMES.get(name)
    start = _length(index, 0x0F, first) if index else bytes((first,)) + _text(name)
    return start + _text(value)


def _text(text: str) -> bytes:
    raw = text.encode("latin-1")
    return _length(len(raw), 0x7F, 0) + raw


def _length(value: int, mask: int, first: int) -> bytes:
    if value < mask:
        return bytes((first | value,))
    out = bytearray((first | mask,))
    value -= mask
    while value >= 0x80:  # noqa: PLR2004 - seven bits a byte, section 5.1
        out.append(0x80 | value & 0x7F)
        value >>= 7
    out.append(value)
    return bytes(out)


def _integer(block: bytes, at: int, mask: int) -> tuple[int, int]:
    value = block[at] & mask
    at += 1
    if value < mask:
        return value, at
    for shift in (0, 7, 14, 21):
        byte = block[at]
        at += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the top bit says that more follows
            return value, at
    raise IndexError("integer is too long")
