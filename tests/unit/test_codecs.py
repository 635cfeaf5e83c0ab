"""What codecs carry, and what they refuse."""

from dataclasses import dataclass

import msgspec
import pydantic
import pytest
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from ketch.codec import Codecs
from ketch.codecs.json import JsonCodec
from ketch.codecs.protobuf import ProtobufCodec
from ketch.errors import CodecError, UnknownContentType


@dataclass
class Plain:
    name: str
    age: int = 0


class Packed(msgspec.Struct):
    name: str
    age: int = 0


class Validated(pydantic.BaseModel):
    name: str
    age: int = 0


codecs = Codecs(ProtobufCodec(), JsonCodec())


@pytest.mark.parametrize("type_", [Plain, Packed, Validated])
def test_json_carries_dataclasses_msgspec_and_pydantic_types(type_):
    codec = JsonCodec()
    payload = type_(name="Zoë", age=3)
    body = codec.encoder(type_)(payload)
    assert msgspec.json.decode(body) == {"name": "Zoë", "age": 3}
    assert codec.decoder(type_)(body) == payload


@pytest.mark.parametrize("type_", [Plain, Packed, Validated])
@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"name": 3}', b'{"age": 1}', b"\xff\xfe", b'{"name": "x", "age": "old"}']
)
def test_json_refuses_what_does_not_fit_the_type(type_, body):
    with pytest.raises(CodecError, match="no JSON of"):
        JsonCodec().decoder(type_)(body)


def test_json_carries_dicts():
    codec = JsonCodec()
    assert codec.decoder(dict)(codec.encoder(dict)({"a": [1, None]})) == {"a": [1, None]}


def test_json_carries_protobuf_by_its_own_mapping():
    codec = JsonCodec()
    body = codec.encoder(Timestamp)(Timestamp(seconds=0))
    assert body == b'"1970-01-01T00:00:00Z"'
    assert codec.decoder(Timestamp)(body) == Timestamp(seconds=0)


@pytest.mark.parametrize("body", [b"", b"{", b"nonsense", b"\xff", b"[" * 5000])
def test_a_garbage_body_is_no_json_of_a_protobuf_message(body):
    with pytest.raises(CodecError):
        JsonCodec().decoder(Struct)(body)


def test_json_refuses_a_type_without_a_json_form():
    class Opaque:
        pass

    with pytest.raises(CodecError, match="Opaque"):
        JsonCodec().encoder(Opaque)


@pytest.mark.parametrize("type_", [Plain, Timestamp])
def test_json_refuses_a_payload_of_another_type(type_):
    with pytest.raises(CodecError, match="can't encode str"):
        JsonCodec().encoder(type_)("text")


def test_protobuf_carries_messages_and_nothing_else():
    codec = ProtobufCodec()
    message = Timestamp(seconds=7)
    assert codec.decoder(Timestamp)(codec.encoder(Timestamp)(message)) == message
    with pytest.raises(CodecError, match="can't encode Struct"):
        codec.encoder(Timestamp)(Struct())
    with pytest.raises(CodecError, match=r"no google\.protobuf\.Timestamp"):
        codec.decoder(Timestamp)(b"\xff\xff\xff")
    with pytest.raises(CodecError, match="Plain is no protobuf"):
        codec.encoder(Plain)


@pytest.mark.parametrize(
    ("content_type", "codec"),
    [
        ("application/protobuf", ProtobufCodec),
        ("application/x-protobuf", ProtobufCodec),
        ("application/json", JsonCodec),
        ("Application/JSON; charset=utf-8", JsonCodec),
    ],
)
def test_the_content_type_selects_the_codec(content_type, codec):
    assert isinstance(codecs.find(content_type), codec)


def test_an_unknown_content_type_is_refused_and_those_there_are_listed():
    with pytest.raises(UnknownContentType, match=r"'text/html'.*application/json, application/protobuf"):
        codecs.find("text/html")


def test_the_default_is_the_first_codec_that_can_carry_the_type():
    assert isinstance(codecs.default_for(Timestamp), ProtobufCodec)
    assert isinstance(codecs.default_for(Plain), JsonCodec)
    with pytest.raises(CodecError, match="no codec can carry object"):
        Codecs(ProtobufCodec()).default_for(object)
