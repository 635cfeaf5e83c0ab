"""Codec: payloads of a type to bytes of a content type, and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, TypeAlias, TypeVar

from .errors import CodecError, UnknownContentType

T = TypeVar("T")

Encode: TypeAlias = Callable[[Any], bytes]
Decode: TypeAlias = Callable[[bytes], Any]

PROTOBUF = "application/protobuf"
JSON = "application/json"


class Codec(ABC):
    """Encodes and decodes one content type. Stateless; `encoder` and `decoder` are asked once per type, at start.

    Attributes:
        content_type: what it writes, such as `application/protobuf`.
        aliases: other content types that mean the same, read as well.
    """

    content_type: ClassVar[str]
    aliases: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def encoder(self, type_: type) -> Encode:
        """Return a function from a payload of that type to its bytes; it raises `CodecError`.

        Raises:
            CodecError: the codec can't carry the type at all.
        """

    @abstractmethod
    def decoder(self, type_: type) -> Decode:
        """Return a function from bytes to a payload of that type; it raises `CodecError` for any bad body.

        Raises:
            CodecError: the codec can't carry the type at all.
        """


class Codecs:
    """The codecs of a program, by content type. Parameters (`; charset=utf-8`) and case don't matter."""

    def __init__(self, *codecs: Codec) -> None:
        self._codecs = codecs
        self._by_type = {name: codec for codec in codecs for name in (codec.content_type, *codec.aliases)}

    def find(self, content_type: str) -> Codec:
        """Return the codec that speaks a content type.

        Raises:
            UnknownContentType: none does; the message lists those there are.
        """
        codec = self._by_type.get(content_type) or self._by_type.get(content_type.partition(";")[0].strip().lower())
        if codec is None:
            known = ", ".join(sorted(codec.content_type for codec in self._codecs))
            raise UnknownContentType(f"no codec for content type {content_type!r}; there are: {known}")
        return codec

    def default_for(self, type_: type) -> Codec:
        """Return the first codec that can carry a type.

        Raises:
            CodecError: none can.
        """
        reasons = []
        for codec in self._codecs:
            try:
                codec.encoder(type_)
            except CodecError as error:
                reasons.append(str(error))
            else:
                return codec
        raise CodecError(f"no codec can carry {type_.__qualname__}: {'; '.join(reasons) or 'none is installed'}")
