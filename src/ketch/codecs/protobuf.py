"""Protobuf's binary form, for generated message classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from google.protobuf.message import DecodeError, EncodeError, Message

from ..codec import PROTOBUF, Codec
from ..errors import CodecError

if TYPE_CHECKING:
    from ..codec import Decode, Encode


class ProtobufCodec(Codec):
    """Carries generated protobuf messages as they are on the wire."""

    content_type = PROTOBUF
    aliases: ClassVar[tuple[str, ...]] = (
        "application/x-protobuf",
        "application/proto",
        "application/grpc+proto",
        "application/vnd.google.protobuf",
    )

    def encoder(self, type_: type) -> Encode:
        """Serialize messages of that class, and of no other."""
        name = _full_name(type_)
        serialize = type_.SerializeToString  # type: ignore[attr-defined]  # checked by _full_name

        def encode(payload: object) -> bytes:
            # Any message's bytes come out of the unbound method, so the class has to be looked at.
            if payload.__class__ is not type_:
                raise CodecError(f"can't encode {type(payload).__name__} as {name}")
            try:
                return serialize(payload)  # type: ignore[no-any-return]
            except EncodeError as error:
                raise CodecError(f"can't encode {name}: {error}") from error

        return encode

    def decoder(self, type_: type) -> Decode:
        """Parse messages of that class. Unknown fields are kept, as protobuf does."""
        name = _full_name(type_)
        parse = type_.FromString  # type: ignore[attr-defined]  # checked by _full_name

        def decode(body: bytes) -> object:
            try:
                return parse(body)
            except (DecodeError, TypeError) as error:
                raise CodecError(f"{len(body)} bytes are no {name}: {error}") from error

        return decode


def _full_name(type_: type) -> str:
    if not issubclass(type_, Message):
        raise CodecError(f"{getattr(type_, '__qualname__', type_)} is no protobuf message class")
    return type_.DESCRIPTOR.full_name
