"""JSON: protobuf's own mapping for messages; dicts, dataclasses, msgspec and pydantic types as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from ..codec import JSON, Codec
from ..errors import CodecError

if TYPE_CHECKING:
    from ..codec import Decode, Encode

#: Nesting that a body may have. Deeper ones are an attack on the stack, not data.
_MAX_DEPTH = 100


class JsonCodec(Codec):
    """Carries whatever has a natural JSON form. Fields that a type doesn't know are ignored, as protobuf does."""

    content_type = JSON
    aliases: ClassVar[tuple[str, ...]] = (
        "text/json",
        "application/grpc+json",
        "application/cloudevents+json",
    )

    def encoder(self, type_: type) -> Encode:
        """Write UTF-8 JSON without white space where the type's library lets us."""
        if _is_protobuf(type_):
            return _protobuf_encoder(type_)
        if hasattr(type_, "model_dump_json"):
            return _checked(type_, lambda payload: payload.model_dump_json().encode())
        _msgspec_decoder(type_)
        return _checked(type_, msgspec.json.Encoder().encode)

    def decoder(self, type_: type) -> Decode:
        """Parse and validate."""
        if _is_protobuf(type_):
            return _protobuf_decoder(type_)
        if hasattr(type_, "model_validate_json"):
            return _guarded(type_, type_.model_validate_json)
        return _guarded(type_, _msgspec_decoder(type_).decode)


def _is_protobuf(type_: type) -> bool:
    return hasattr(type_, "DESCRIPTOR") and hasattr(type_, "FromString")


def _protobuf_encoder(type_: type) -> Encode:
    # Imported where it is used: a program that speaks binary protobuf only shouldn't pay for it at start.
    from google.protobuf import json_format  # noqa: PLC0415

    def encode(payload: Any) -> bytes:
        text: str = json_format.MessageToJson(payload, indent=None)
        return text.encode()

    return _checked(type_, encode)


def _protobuf_decoder(type_: Any) -> Decode:
    from google.protobuf import json_format  # noqa: PLC0415 - as above

    def decode(body: bytes) -> object:
        return json_format.Parse(body.decode(), type_(), ignore_unknown_fields=True, max_recursion_depth=_MAX_DEPTH)

    return _guarded(type_, decode)


def _msgspec_decoder(type_: type) -> msgspec.json.Decoder[Any]:
    try:
        custom = isinstance(msgspec.inspect.type_info(type_), msgspec.inspect.CustomType)
    except TypeError as error:
        raise CodecError(f"{type_.__qualname__} has no JSON form: {error}") from error
    if custom:
        raise CodecError(f"{type_.__qualname__} has no JSON form; a dataclass, msgspec or pydantic type has")
    return msgspec.json.Decoder(type_)


def _checked(type_: type, encode: Encode) -> Encode:
    name = type_.__qualname__

    def checked(payload: object) -> bytes:
        if not isinstance(payload, type_):
            raise CodecError(f"can't encode {type(payload).__name__} as {name}")
        try:
            return encode(payload)
        except (TypeError, ValueError, RecursionError) as error:
            raise CodecError(f"can't encode {name} as JSON: {error}") from error

    return checked


def _guarded(type_: type, decode: Decode) -> Decode:
    name = type_.__qualname__

    def guarded(body: bytes) -> object:
        # Every library here reports bad input as some ValueError or its own Error: msgspec's and json_format's
        # are told apart by name, since neither need be imported.
        try:
            return decode(body)
        except (ValueError, RecursionError, TypeError, msgspec.MsgspecError) as error:
            raise CodecError(f"{len(body)} bytes are no JSON of {name}: {_first_line(error)}") from error
        except Exception as error:
            if type(error).__module__ != "google.protobuf.json_format":
                raise
            raise CodecError(f"{len(body)} bytes are no JSON of {name}: {_first_line(error)}") from error

    return guarded


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]
