"""StockCodec: messages are carried by the functions that grpcio's generated code names for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from google.protobuf import descriptor_pool, message_factory

from ..codec import PROTOBUF, Codec
from ..errors import CodecError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..codec import Decode, Encode


class StockCodec(Codec):
    """A method's serializer and deserializer; None takes and gives bytes as they are.

    They decide by themselves what they carry: protobuf messages as a rule, anything else where a program says so.
    """

    content_type = PROTOBUF

    def __init__(self, serialize: Callable[[Any], bytes] | None, deserialize: Callable[[bytes], Any] | None) -> None:
        self._serialize = serialize
        self._deserialize = deserialize

    def encoder(self, type_: type) -> Encode:  # noqa: ARG002 - the function knows it
        """Return the serializer."""
        serialize = self._serialize
        if serialize is None:
            return bytes

        def encode(payload: object) -> bytes:
            try:
                return serialize(payload)
            except Exception as error:
                raise CodecError(f"can't serialize {type(payload).__name__}: {error}") from error

        return encode

    def decoder(self, type_: type) -> Decode:  # noqa: ARG002 - as above
        """Return the deserializer."""
        deserialize = self._deserialize
        if deserialize is None:
            return bytes

        def decode(body: bytes) -> object:
            try:
                return deserialize(body)
            except Exception as error:
                raise CodecError(f"{len(body)} bytes can't be deserialized: {error}") from error

        return decode


def message_classes(contract: str, rpc: str) -> tuple[type[Any], type[Any]]:
    """Return an rpc's message classes; `object` for both where protobuf doesn't know it.

    With them a method is also called in JSON (`ketch call`), and described by reflection.
    """
    pool = descriptor_pool.Default()
    try:
        method = pool.FindServiceByName(contract).methods_by_name[rpc]
    except KeyError:
        return object, object
    return message_factory.GetMessageClass(method.input_type), message_factory.GetMessageClass(method.output_type)
