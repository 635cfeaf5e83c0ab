"""STOMP's frames and the events in them, without a server."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.brokers.stomp import frames
from ketch.brokers.stomp.envelope import Writer, queue_destination, read, topic_destination, topic_of
from ketch.brokers.stomp.frames import Decoder, Frame, escape, unescape
from ketch.errors import BrokerError
from ketch.message import Message

TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=40)


def decode(data, *, limit=1 << 20):
    return Decoder(limit).feed(data)


@given(TEXT)
def test_what_is_escaped_comes_back_and_ends_no_line(text):
    assert unescape(escape(text)) == text
    assert not set("\n\r:") & set(escape(text))


@given(
    st.lists(st.tuples(st.dictionaries(TEXT.filter(bool), TEXT, max_size=5), st.binary(max_size=200)), max_size=8),
    st.integers(1, 40),
)
def test_frames_that_are_cut_anywhere_come_whole(sent, step):
    sent = [({**headers, "content-length": str(len(body))}, body) for headers, body in sent]
    raw = b"\n".join(frames.frame(b"MESSAGE", headers, body) for headers, body in sent)
    decoder = Decoder(1 << 20)
    came = [frame for at in range(0, len(raw), step) for frame in decoder.feed(raw[at : at + step])]
    assert [(frame.command, frame.headers, frame.body) for frame in came] == [("MESSAGE", *pair) for pair in sent]


def test_a_body_without_a_length_ends_with_the_nul():
    assert decode(b"MESSAGE\na:b\n\nbody\0\n\nRECEIPT\nreceipt-id:7\n\n\0") == [
        Frame("MESSAGE", {"a": "b"}, b"body"),
        Frame("RECEIPT", {"receipt-id": "7"}),
    ]


def test_lines_may_end_as_on_windows():
    assert decode(b"RECEIPT\r\nreceipt-id:7\r\n\r\n\0") == [Frame("RECEIPT", {"receipt-id": "7"})]


def test_of_equal_headers_the_first_counts():
    assert decode(b"MESSAGE\na:1\na:2\n\n\0") == [Frame("MESSAGE", {"a": "1"})]


def test_the_greeting_is_not_escaped():
    assert decode(b"CONNECTED\nserver:a\\b\n\n\0") == [Frame("CONNECTED", {"server": "a\\b"})]


def test_heart_beats_are_no_frames():
    assert decode(b"\n\n\r\n") == []


@pytest.mark.parametrize(
    "raw",
    [
        b"MESSAGE\ncontent-length:9999999\n\n",  # a body over the limit
        b"MESSAGE\ncontent-length:-1\n\n\0",  # a length that is none
        b"MESSAGE\ncontent-length:1\n\nab\0",  # a body longer than it says
        b"MESSAGE\na\\x:b\n\n\0",  # an escape that there isn't
        b"MESSAGE\nab\n\n\0",  # no colon
        b"HTTP/1.1 400 Bad Request\nServer:x\n\n\0",  # another protocol
        b"MESSAGE\na:\xff\n\n\0",  # no UTF-8
        b"MESSAGE\n" + b"a:b\n" * 1025 + b"\n\0",  # too many headers
        b"MESSAGE\na:" + b"b" * frames.MAX_HEAD + b"\n\n\0",  # too long ones
        b"MESSAGE\n\n" + b"b" * ((1 << 20) + 1),  # an endless body
    ],
)
def test_what_no_server_may_send_is_refused(raw):
    with pytest.raises(BrokerError):
        decode(raw)


@given(st.binary(max_size=200))
def test_garbage_is_refused_or_waited_for_and_nothing_else_happens(raw):
    try:
        came = decode(raw)
    except BrokerError:
        return
    assert all(isinstance(frame, Frame) for frame in came)


def test_a_header_that_would_end_its_frame_is_refused():
    for value in ("a\0b", "\ud800"):
        with pytest.raises(BrokerError):
            frames.head({"x": value})
    with pytest.raises(BrokerError):
        frames.connect({"login": "a\npasscode:b"})


# --- events


def there_and_back(message):
    before, after = Writer().send(message, 0.0)
    (frame,) = decode((before + b"receipt:1\n" + after).replace(b"SEND", b"MESSAGE", 1))
    return frame, read(frame)


@given(
    st.dictionaries(
        st.sampled_from(["ce-id", "ce-x", "content-type", "id", "type", "priority", "destination", "x.y", "amq_x"]),
        TEXT,
    ),
    st.binary(max_size=100),
)
def test_any_headers_and_body_come_back(headers, body):
    _, came = there_and_back(Message("user.created", headers, body))
    assert (came.topic, dict(came.headers), came.body) == ("user.created", headers, body)


def test_metadata_that_is_called_like_a_header_of_stomps_is_told_apart():
    frame, came = there_and_back(Message("t", {"id": "mine", "priority": "high", "tenant": "bbc"}, b""))
    assert frame.headers["meta:id"] == "mine"
    assert frame.headers["meta:priority"] == "high"
    assert frame.headers["tenant"] == "bbc"
    assert came.metadata == {"id": "mine", "priority": "high", "tenant": "bbc"}


def test_an_event_with_a_key_is_of_a_message_group():
    frame, came = there_and_back(Message("t", {"ce-partitionkey": "user-7"}, b""))
    assert frame.headers["JMSXGroupID"] == "user-7"
    assert (came.key, dict(came.headers)) == ("user-7", {"ce-partitionkey": "user-7"})


def test_topics_are_virtual_topics_and_groups_their_queues():
    assert topic_destination("user.created") == "/topic/VirtualTopic.user.created"
    assert queue_destination("user.created", "email") == "/queue/Consumer.email.VirtualTopic.user.created"
    assert queue_destination("a", "go.micro.srv") == "/queue/Consumer.go%2Emicro%2Esrv.VirtualTopic.a"


@given(st.text(st.characters(exclude_categories=("Cs",)), min_size=1).filter(lambda t: all(t.split("."))))
def test_any_topic_comes_back(topic):
    assert topic_of(topic_destination(topic)) == topic
    assert topic_of(queue_destination(topic, "a.b*")) == topic


@pytest.mark.parametrize("topic", ["", "a..b", ".a", "\ud800"])
def test_what_is_no_topic_is_refused(topic):
    with pytest.raises(BrokerError):
        topic_destination(topic)
    with pytest.raises(BrokerError):
        queue_destination("a", "")
