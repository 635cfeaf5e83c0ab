"""MQTT 5's packets and the events in them, without a server."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.brokers.mqtt import packets
from ketch.brokers.mqtt.decoder import Decoder, _varint, read_properties
from ketch.brokers.mqtt.envelope import (
    Headers,
    Writer,
    ketch_topic,
    mqtt_topic,
    read_headers,
    share_name,
    topic_filter,
)
from ketch.brokers.mqtt.packets import Answer, Publish
from ketch.errors import BrokerError
from ketch.message import Message

TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc", "Cn")), max_size=40)


def read(data, *, limit=1 << 20):
    return Decoder(limit).feed(data)


def event(topic="a/b", properties=b"", payload=b"", **options):
    tail = packets.varint(len(properties)) + properties + payload
    return packets.publish(packets.string(topic), tail, **options)


@given(st.integers(0, 268_435_455))
def test_lengths_are_written_as_they_are_read(number):
    raw = packets.varint(number)
    assert len(raw) <= 4
    assert _varint(raw, 0, len(raw)) == (number, len(raw))


@given(st.lists(st.binary(max_size=300), max_size=20), st.integers(1, 50))
def test_packets_that_are_cut_anywhere_come_whole(payloads, step):
    raw = b"".join(event(payload=payload, id=number) for number, payload in enumerate(payloads, 1))
    decoder = Decoder(1 << 20)
    came = [packet for at in range(0, len(raw), step) for packet in decoder.feed(raw[at : at + step])]
    assert [(packet.id, packet.payload) for packet in came] == list(enumerate(payloads, 1))


def test_an_answer_is_read():
    connack, puback, short, suback, disconnect = read(
        b"\x20\x0b\x01\x00\x08\x21\x00\x14\x1f\x00\x02hi"
        b"\x40\x04\x00\x07\x10\x00\x40\x02\x00\x08\x90\x04\x00\x09\x00\x01\xe0\x02\x8e\x00"
    )
    assert connack == Answer(packets.CONNACK, 0, (0,), {0x21: 20, 0x1F: "hi"}, session_present=True)
    assert puback == Answer(packets.PUBACK, 7, (0x10,))
    assert short == Answer(packets.PUBACK, 8, (0,))
    assert suback == Answer(packets.SUBACK, 9, (1,))
    assert disconnect == Answer(packets.DISCONNECT, 0, (packets.SESSION_TAKEN_OVER,))
    assert disconnect.why == "session taken over (0x8e)"


@pytest.mark.parametrize(
    "raw",
    [
        b"\x20\xff\xff\xff\xff\x01",  # a length of five bytes
        b"\x30\xff\xff\xff\x7f",  # more than was agreed on
        b"\x30\x02\x00\x09",  # a topic that leads out of its packet
        b"\x30\x04\x00\x01a\x09",  # properties that lead out of theirs
        b"\x32\x06\x00\x01a\x00\x00\x00",  # QoS 1 without an id
        b"\x34\x06\x00\x01a\x00\x01\x00",  # QoS 2
        b"\x30\x04\x00\x01\xff\x00",  # a topic that is no UTF-8
        b"\x10\x00",  # a CONNECT, which only clients send
        b"\x20\x00",  # a CONNACK without anything
        b"\x40\x01\x00",  # half an id
        b"\x20\x05\x00\x00\x02\x99\x00",  # a property that nobody knows
    ],
)
def test_what_no_server_may_send_is_refused(raw):
    with pytest.raises(BrokerError):
        read(raw)


@given(st.binary(max_size=200))
def test_garbage_is_refused_or_waited_for_and_nothing_else_happens(raw):
    try:
        came = read(raw)
    except BrokerError:
        return
    assert all(isinstance(packet, (Publish, Answer)) for packet in came)


def test_more_properties_than_anybody_needs_are_refused():
    with pytest.raises(BrokerError, match="1024"):
        read_properties(packets.pair("a", "b") * 1025)


def connect(**options):
    return packets.Connect(
        "me",
        clean=True,
        keep_alive=20,
        session_expiry=0,
        receive_maximum=10,
        maximum_packet_size=1000,
        username="u",
        **options,
    )


def test_a_connect_says_what_the_specification_wants():
    raw = connect(password="p", will=("w", b"away"), will_delay=2).encode()
    assert raw == (
        b"\x10\x31\x00\x04MQTT\x05\xee\x00\x14\x0d\x11\x00\x00\x00\x00\x21\x00\x0a\x27\x00\x00\x03\xe8"
        b"\x00\x02me\x05\x18\x00\x00\x00\x02\x00\x01w\x00\x04away\x00\x01u\x00\x01p"
    )


def test_a_password_is_not_shown():
    assert "secret" not in repr(connect(password="secret"))


def test_a_text_that_is_too_long_or_no_unicode_is_refused():
    for text in ("x" * 65_536, "\ud800"):
        with pytest.raises(BrokerError):
            packets.string(text)


# --- events


def written(headers):
    (came,) = read(packets.publish(packets.string("t"), Writer().tail(Message("t", headers, b"body"))))
    assert came.payload == b"body"
    return came


@given(
    st.dictionaries(st.sampled_from(["id", "source", "type", "foo", "time", "x-y", "a.b", "partitionkey"]), TEXT),
    st.dictionaries(st.sampled_from(["id", "source", "type", "foo", "time", "partitionkey", "subject"]), TEXT),
)
def test_any_headers_come_back(metadata, attributes):
    headers = {**metadata, **{f"ce-{name}": value for name, value in attributes.items()}}
    came = Headers(written(headers).properties)
    assert dict(came) == headers
    for name, value in headers.items():
        assert Headers(written(headers).properties).get(name) == value


def test_attributes_are_user_properties_of_their_bare_names():
    headers = {
        "ce-specversion": "1.0",
        "ce-source": "s",
        "ce-type": "t",
        "content-type": "text/plain",
        "ce-id": "7",
        "ce-time": "now",
    }
    for more in ({}, {"tenant": "bbc"}):
        properties = read_properties(written(headers | more).properties)
        assert properties[packets.CONTENT_TYPE] == "text/plain"
        names = {"specversion": "1.0", "source": "s", "type": "t", "id": "7", "time": "now"}
        assert dict(properties[packets.USER_PROPERTY]) == names | more


def test_metadata_that_is_called_like_an_attribute_is_told_apart():
    properties = read_properties(written({"ce-id": "1", "id": "mine", "ce-tenant": "x"}).properties)
    pairs = {"id": "1", "meta:id": "mine", "tenant": "x", "ketch:extensions": "tenant"}
    assert dict(properties[packets.USER_PROPERTY]) == pairs


def test_a_header_with_a_control_character_is_refused():
    with pytest.raises(BrokerError, match="control character"):
        Writer().tail(Message("t", {"x": "a\nb"}, b""))


def test_the_first_of_equal_names_counts_and_names_come_in_lower_case():
    raw = packets.pair("Tenant", "one") + packets.pair("tenant", "two")
    assert read_headers(raw) == {"tenant": "one"}


def test_topics_are_levels():
    assert mqtt_topic("user.created") == "user/created"
    assert ketch_topic("user/created") == "user.created"


@given(st.text(st.sampled_from("ab./-_"), min_size=1))
def test_no_two_topics_are_one(topic):
    assert ketch_topic(mqtt_topic(topic)) == topic


@pytest.mark.parametrize("topic", ["", "a+b", "a#", "a\x00b"])
def test_what_is_no_topic_of_mqtts_is_refused(topic):
    with pytest.raises(BrokerError):
        mqtt_topic(topic)


@pytest.mark.parametrize(("pattern", "wanted"), [("a.*", "a/+"), ("a.>", "a/#"), (">", "#"), ("a.b", "a/b")])
def test_patterns_are_filters(pattern, wanted):
    assert topic_filter(pattern) == wanted


def test_groups_are_names_that_a_share_may_have():
    names = ["go.micro.srv.user", "a/b", "a%2Fb", "a+", "a#"]
    shares = [share_name(name) for name in names]
    assert len(set(shares)) == len(names)
    assert not any(set("/+#") & set(share) for share in shares)
    with pytest.raises(BrokerError):
        share_name("")
