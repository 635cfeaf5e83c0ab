"""Messages on standard input and output, each after four bytes that give its length."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

if TYPE_CHECKING:
    from google.protobuf.message import Message

T = TypeVar("T")


def ask(stream: BinaryIO, kind: type[T]) -> T | None:
    """Return the next message, None where there is no more."""
    head = stream.read(4)
    if len(head) < 4:
        return None
    message: Any = kind()
    message.ParseFromString(stream.read(int.from_bytes(head)))
    return message  # type: ignore[no-any-return]  # one of `kind`


def answer(stream: BinaryIO, message: Message) -> None:
    """Write a message."""
    data = message.SerializeToString()
    stream.write(len(data).to_bytes(4) + data)
    stream.flush()
