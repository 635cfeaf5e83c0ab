"""Decoding: from a message to its payload, by the content type that it says it has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from ..codec import JSON, PROTOBUF
from ..errors import CodecError
from ..message import CONTENT_TYPE, Message

if TYPE_CHECKING:
    from ..codec import Codecs, Decode
    from ..topic import Topic

T = TypeVar("T")

#: Publishers remembered whose events were found to fit.
_ORIGINS = 1024

#: Decoders remembered by content type; a publisher that makes types up must not fill the memory.
_CONTENT_TYPES = 16


class Decoding(Generic[T]):
    """Decodes one topic's events."""

    def __init__(self, topic: Topic[T], codecs: Codecs) -> None:
        self._topic = topic
        self._codecs = codecs
        self._raw = topic.type is Message
        self._by_origin: dict[object, Decode] = {}
        self._decoders: dict[str, Decode] = {}
        if not self._raw:
            self._decoder(topic.content_type)
        # A protobuf body of another type often parses, into nonsense, so there the event's type has to fit.
        self._type = topic.event_type
        self._binary = self._decoder(PROTOBUF) if hasattr(topic.type, "DESCRIPTOR") else None

    def decode(self, message: Message) -> T:
        """Return a message's payload.

        Raises:
            CodecError: body and type don't fit together.
        """
        if self._raw:
            return message  # type: ignore[return-value]  # the topic's type is Message
        headers = message.headers
        origin = None if type(headers) is dict else headers.origin  # type: ignore[attr-defined]  # it is lazy then
        if origin is not None:
            known = self._by_origin.get(origin)
            if known is not None:
                return known(message.body)  # type: ignore[no-any-return]  # a decoder's result is of the topic's type
        decode = self._find(message)
        if origin is not None and len(self._by_origin) < _ORIGINS:
            self._by_origin[origin] = decode
        payload: T = decode(message.body)
        return payload

    def _find(self, message: Message) -> Decode:
        headers = message.headers
        content_type = headers.get(CONTENT_TYPE) or self._guess(message)
        decode = self._decoders.get(content_type) or self._decoder(content_type)
        if decode is self._binary:
            said = headers.get("ce-type")
            if said and said != self._type:
                raise CodecError(f"the event is a {said}, not a {self._type}")
        return decode

    def _guess(self, message: Message) -> str:
        # A plain client of the broker need not say what it sends. No proto3 message starts with "{": that byte is
        # the tag of a group, which proto3 doesn't have.
        return JSON if message.body.startswith(b"{") else self._topic.content_type

    def _decoder(self, content_type: str) -> Decode:
        decode = self._codecs.find(content_type).decoder(self._topic.type)
        if len(self._decoders) < _CONTENT_TYPES:
            self._decoders[content_type] = decode
        return decode
