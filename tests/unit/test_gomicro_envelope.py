"""go-micro's envelope; the bytes are those that its NATS broker published (v5.12.0, with its gRPC client)."""

import json

import pytest

from ketch.brokers.nats.envelope import unwrap, wrap
from ketch.message import CONTENT_TYPE, Message

PROTOBUF = b'{"Header":{"Content-Type":"%s","Micro-Topic":"greeted.by.go"},"Body":"CgU8QWRhPhAH"}'
JSON = (
    b'{"Header":{"Content-Type":"application/json","Micro-Topic":"greeted.by.go"},'
    b'"Body":"eyJuYW1lIjoiPEFkYT4iLCJudW1iZXIiOiI3In0="}'
)


@pytest.mark.parametrize(
    ("said", "read"),
    [
        (b"application/grpc+proto", "application/grpc+proto"),
        (b"application/protobuf", "application/protobuf"),
        (b"application/grpc", "application/protobuf"),
        (b"application/octet-stream", "application/protobuf"),
    ],
)
def test_all_of_its_content_types_for_protobuf_are_protobuf(said, read):
    message = unwrap("greeted.by.go", None, PROTOBUF % said)
    assert (message.content_type, message.body, message.id) == (read, b"\n\x05<Ada>\x10\x07", "")


def test_its_json_is_json():
    message = unwrap("greeted.by.go", None, JSON)
    assert (message.content_type, json.loads(message.body)) == ("application/json", {"name": "<Ada>", "number": "7"})


def test_what_we_write_is_what_go_would_have_written():
    ours = wrap(Message("greeted.by.go", {CONTENT_TYPE: "application/protobuf"}, b"\n\x05<Ada>\x10\x07"))
    assert ours == PROTOBUF % b"application/protobuf"
