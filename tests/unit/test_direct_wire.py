"""What direct puts on the wire is the CloudEvents protobuf format, by whichever path it was encoded."""

import re

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2
from hypothesis import given
from hypothesis import strategies as st

from ketch.brokers.direct.direct_pb2 import Batch, Event
from ketch.brokers.direct.wire import Encoder, head, messages, varint
from ketch.message import Message, event_headers, stamp

SHARED = event_headers(source="wire", type="ketch.test.v1.Case", content_type="application/protobuf")
HEADERS = {**SHARED, "ce-id": "0123456789abcdef00000000", "ce-time": "2026-11-23T23:57:23.042Z"}


def cloud_event_class():
    """Declare io.cloudevents.v1.CloudEvent with the numbers of the specification, independently of direct.proto."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="cloudevents.proto", package="io.cloudevents.v1", syntax="proto3")
    file.dependency.append("google/protobuf/timestamp.proto")
    event = file.message_type.add(name="CloudEvent")
    event.oneof_decl.add(name="data")
    for number, name in enumerate(("id", "source", "spec_version", "type"), 1):
        event.field.add(name=name, number=number, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    value_name = ".io.cloudevents.v1.CloudEvent.CloudEventAttributeValue"
    entry = event.nested_type.add(name="AttributesEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    entry.field.add(name="value", number=2, type=field.TYPE_MESSAGE, type_name=value_name, label=field.LABEL_OPTIONAL)
    event.field.add(
        name="attributes",
        number=5,
        type=field.TYPE_MESSAGE,
        type_name=".io.cloudevents.v1.CloudEvent.AttributesEntry",
        label=field.LABEL_REPEATED,
    )
    for number, name, kind in ((6, "binary_data", field.TYPE_BYTES), (7, "text_data", field.TYPE_STRING)):
        event.field.add(name=name, number=number, type=kind, label=field.LABEL_OPTIONAL, oneof_index=0)
    value = event.nested_type.add(name="CloudEventAttributeValue")
    value.oneof_decl.add(name="attr")
    kinds = {
        "ce_boolean": field.TYPE_BOOL,
        "ce_integer": field.TYPE_INT32,
        "ce_string": field.TYPE_STRING,
        "ce_bytes": field.TYPE_BYTES,
        "ce_uri": field.TYPE_STRING,
        "ce_uri_ref": field.TYPE_STRING,
    }
    for number, (name, kind) in enumerate(kinds.items(), 1):
        value.field.add(name=name, number=number, type=kind, label=field.LABEL_OPTIONAL, oneof_index=0)
    value.field.add(
        name="ce_timestamp",
        number=7,
        type=field.TYPE_MESSAGE,
        type_name=".google.protobuf.Timestamp",
        label=field.LABEL_OPTIONAL,
        oneof_index=0,
    )
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("io.cloudevents.v1.CloudEvent"))


CloudEvent = cloud_event_class()

text = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
known = st.fixed_dictionaries(
    {
        "ce-id": text.filter(bool),
        "ce-source": text.filter(bool),
        "ce-specversion": st.sampled_from(("1.0", "1.1")),
        "ce-type": text.filter(bool),
        "ce-time": st.one_of(
            st.just(HEADERS["ce-time"]),
            st.datetimes().map(lambda when: f"{when:%Y-%m-%dT%H:%M:%S}.{when.microsecond // 1000:03d}Z"),
            text,
        ),
        "content-type": text,
    }
)
attribute = st.from_regex(re.compile(r"ce-[a-z0-9]{1,20}", re.ASCII), fullmatch=True).filter(
    lambda name: name not in {"ce-time", "ce-id", "ce-source", "ce-specversion", "ce-type", "ce-datacontenttype"}
)
own = st.from_regex(re.compile(r"[a-z0-9._-]{1,20}", re.ASCII), fullmatch=True).filter(
    lambda name: not name.startswith("ce-") and name != "content-type"
)
more = st.dictionaries(st.one_of(attribute, own), text, max_size=4)


def through(*sent, encoder=None):
    """Encode, and decode as the inbox does."""
    encoder = encoder or Encoder()
    batch = head("topic", ("id",)) + b"".join(encoder.encode(message) for message in sent)
    return messages(Batch.FromString(batch))


def received(**fields):
    (message,) = messages(Batch(topic="topic", events=[Event(**fields)]))
    return message


def test_an_event_is_a_cloud_event_of_the_protobuf_format():
    encoded = Encoder().encode(Message("topic", HEADERS, b"body"))
    (event,) = Batch.FromString(encoded).events
    cloud = CloudEvent.FromString(event.event.SerializeToString())
    assert (cloud.id, cloud.source, cloud.spec_version) == ("0123456789abcdef00000000", "wire", "1.0")
    assert (cloud.type, cloud.binary_data) == ("ketch.test.v1.Case", b"body")
    assert cloud.attributes["datacontenttype"].ce_string == "application/protobuf"
    assert cloud.attributes["time"].ce_timestamp.ToJsonString() == "2026-11-23T23:57:23.042Z"
    assert set(cloud.attributes) == {"datacontenttype", "time"}


@given(known, st.binary(max_size=300))
def test_the_short_way_and_the_long_way_say_the_same(headers, body):
    encoder, message = Encoder(), Message("topic", headers, body)
    short, long = encoder.encode(message), encoder._encode_any(message)
    assert Batch.FromString(short) == Batch.FromString(long)


@given(known, more, st.binary(max_size=300))
def test_headers_and_body_arrive_as_they_were_sent(headers, others, body):
    headers = headers | others
    (got,) = through(Message("topic", headers, body))
    assert (got.topic, dict(got.headers), got.body) == ("topic", headers, body)


@given(more, st.binary(max_size=300))
def test_so_do_those_of_a_publisher_that_says_nothing_of_itself(headers, body):
    (got,) = through(Message("topic", headers, body))
    assert (dict(got.headers), got.body) == (headers, body)


@given(st.lists(known, min_size=2, max_size=8))
def test_publishers_that_share_an_encoder_are_not_mixed_up(senders):
    sent = [Message("topic", headers, b"") for headers in senders]
    assert [dict(message.headers) for message in through(*sent)] == senders


@given(known, more)
def test_a_header_reads_the_same_before_and_after_all_were_made(headers, others):
    (lazy,), (made,) = (through(Message("topic", headers | others, b"")) for _ in range(2))
    assert len(made.headers) == len(headers | others)
    for name in ("content-type", "ce-type", "nothing"):
        assert lazy.headers.get(name) == made.headers.get(name) == (headers | others).get(name)


@given(st.integers(0, 2**40))
def test_lengths_are_varints(number):
    decoded = sum((byte & 0x7F) << 7 * place for place, byte in enumerate(varint(number)))
    assert decoded == number
    assert [byte >> 7 for byte in varint(number)] == [1] * (len(varint(number)) - 1) + [0]


def test_large_bodies_pass():
    (got,) = through(Message("topic", stamp(SHARED), b"x" * 3_000_000))
    assert got.body == b"x" * 3_000_000


def test_metadata_cannot_forge_what_the_event_says_of_itself():
    got = received(
        event={"id": "1", "source": "me", "type": "mine", "attributes": {"id": {"ce_string": "2"}}},
        metadata={"ce-id": "3", "CE-Source": "you", "content-type": "text/html", "Content-Type": "x", "Own": "1"},
    )
    assert dict(got.headers) == {"ce-id": "1", "ce-source": "me", "ce-type": "mine", "own": "1"}
    assert got.metadata == {"own": "1"}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"ce_boolean": True}, "true"),
        ({"ce_boolean": False}, "false"),
        ({"ce_integer": -7}, "-7"),
        ({"ce_bytes": b"\x00\xff"}, "AP8="),
        ({"ce_uri": "urn:x"}, "urn:x"),
        ({"ce_uri_ref": "/x"}, "/x"),
        ({"ce_timestamp": {"seconds": 0}}, "1970-01-01T00:00:00.000Z"),
        ({"ce_timestamp": {"seconds": 1, "nanos": 123_456_000}}, "1970-01-01T00:00:01.123456Z"),
        ({"ce_timestamp": {"seconds": 1, "nanos": 1}}, "1970-01-01T00:00:01.000000001Z"),
        ({"ce_timestamp": {"seconds": -62_135_596_800}}, "0001-01-01T00:00:00.000Z"),
        ({"ce_timestamp": {"seconds": 2**62}}, ""),
        ({"ce_timestamp": {"nanos": -1}}, ""),
        ({}, ""),
    ],
)
def test_an_attribute_of_any_type_is_read_as_text(value, said):
    assert received(event={"attributes": {"x": value}}).headers["ce-x"] == said


def test_text_data_is_a_body_too():
    assert received(event={"text_data": "grüß"}).body == "grüß".encode()
