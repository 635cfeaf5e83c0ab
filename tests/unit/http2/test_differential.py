"""The `h2` package, a peer that others wrote, sees what we mean, and we see what it means; same for `hpack`."""

import h2.config
import h2.connection
import h2.events
import pytest
from hpack import Decoder as TheirDecoder
from hpack import Encoder as TheirEncoder
from hypothesis import given, settings
from hypothesis import strategies as st

from ketch.errors import ProtocolError
from ketch.http2.compression import Decoder, encode

NAME = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_.", min_size=1, max_size=20)
COMMON = st.sampled_from([":path", ":method", "content-type", "te", "authorization", "x-request-id"])
VALUE = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=300)
FIELDS = st.lists(st.tuples(NAME | COMMON, VALUE), max_size=12)
REQUEST = [(":method", "POST"), (":scheme", "http"), (":path", "/a/B"), (":authority", "x"), ("te", "trailers")]


@given(blocks=st.lists(st.tuples(FIELDS, st.booleans()), max_size=8), sizes=st.lists(st.sampled_from([0, 100, 4096])))
@settings(max_examples=150, deadline=None)
def test_we_decode_what_hpack_encodes(blocks, sizes):
    theirs, ours = TheirEncoder(), Decoder(2**20)
    for number, (fields, huffman) in enumerate(blocks):
        if number < len(sizes):
            theirs.header_table_size = sizes[number]
        assert list(ours.decode(theirs.encode(fields, huffman=huffman)).fields) == fields


@given(fields=FIELDS)
@settings(max_examples=150, deadline=None)
def test_hpack_decodes_what_we_encode(fields):
    assert [tuple(field) for field in TheirDecoder(2**20).decode(encode(fields))] == fields


@given(block=st.binary(max_size=60))
@settings(max_examples=500, deadline=None)
def test_what_hpack_takes_we_take_and_what_it_refuses_we_refuse(block):
    theirs = TheirDecoder(2**20)
    try:
        expected = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in theirs.decode(block, raw=True)]
    except Exception:  # noqa: BLE001 - whatever hpack raises, it refuses
        expected = None
    try:
        found = list(Decoder(2**20).decode(block).fields)
    except ProtocolError:
        found = None
    assert found == expected


class Theirs:
    """The h2 side of a conversation."""

    def __init__(self, *, client):
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=client, header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.events = []

    def talk(self, ours):
        """Pass bytes to and fro until neither has more to say."""
        while True:
            mine = self.h2.data_to_send()
            ours.connection.receive(mine)
            data = ours.connection.sender.take()
            ours.connection.sender.taken(paused=False)
            if not mine and not data:
                return
            for event in self.h2.receive_data(data) if data else ():
                self.events.append(event)
                if isinstance(event, h2.events.DataReceived) and event.flow_controlled_length:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]


@given(body=st.binary(max_size=2000), times=st.integers(1, 300), pad=st.none() | st.integers(0, 255))
@settings(max_examples=40, deadline=None)
def test_an_h2_client_and_our_server_exchange_bodies_of_any_size(body, times, pad, make_side):
    ours, theirs = make_side(), Theirs(client=True)
    theirs.talk(ours)
    theirs.h2.send_headers(1, REQUEST)
    theirs.talk(ours)
    stream = ours.streams[1]
    for _ in range(times):
        if theirs.h2.local_flow_control_window(1) < len(body) + 256:
            theirs.talk(ours)
            stream.consume(len(stream.body) - getattr(stream, "taken", 0))
            stream.taken = len(stream.body)
            theirs.talk(ours)
        theirs.h2.send_data(1, body, pad_length=pad)
    theirs.h2.send_headers(1, [("x-end", "1")], end_stream=True)
    theirs.talk(ours)
    assert stream.body == body * times
    assert stream.ended
    head = ours.connection.headers(stream, encode([(":status", "200")]))
    tail = ours.connection.trailers(stream, encode([("grpc-status", "0")]))
    ours.connection.sender.message(stream, head, body * times, end=False, trailers=tail)
    theirs.talk(ours)
    assert b"".join(event.data for event in theirs.of(h2.events.DataReceived)) == body * times
    assert theirs.of(h2.events.TrailersReceived)[0].headers == [("grpc-status", "0")]
    assert theirs.of(h2.events.StreamEnded)
    assert not ours.connection.streams


def test_our_client_and_an_h2_server_exchange_a_call(make_side):
    ours, theirs = make_side(client=True), Theirs(client=False)
    theirs.talk(ours)
    stream = ours.open()
    body = bytes(range(256)) * 2000
    ours.connection.sender.message(stream, ours.connection.headers(stream, encode(REQUEST)), body, end=True)
    theirs.talk(ours)
    assert theirs.of(h2.events.RequestReceived)[0].headers == REQUEST
    assert b"".join(event.data for event in theirs.of(h2.events.DataReceived)) == body
    theirs.h2.send_headers(1, [(":status", "200"), ("x", "y")])
    theirs.h2.send_data(1, b"reply")
    theirs.h2.send_headers(1, [("grpc-status", "0")], end_stream=True)
    theirs.talk(ours)
    assert [entry[1:3] for entry in ours.log if entry[1] != "drained"] == [
        ("headers", ((":status", "200"), ("x", "y"))),
        ("data", b"reply"),
        ("headers", (("grpc-status", "0"),)),
    ]
    assert stream.closed


@pytest.mark.parametrize("code", [0, 8])
def test_resets_cross_both_ways(make_side, code):
    ours, theirs = make_side(), Theirs(client=True)
    theirs.h2.send_headers(1, REQUEST)
    theirs.h2.send_headers(3, REQUEST)
    theirs.talk(ours)
    theirs.h2.reset_stream(1, code)
    ours.connection.reset(ours.streams[3], code)
    theirs.talk(ours)
    assert ours.streams[1].reset == (code, False)
    assert theirs.of(h2.events.StreamReset)[0].error_code == code


def test_an_h2_client_with_no_header_table_understands_us(make_side):
    ours, theirs = make_side(), Theirs(client=True)
    theirs.h2.update_settings({1: 0})
    theirs.h2.send_headers(1, REQUEST, end_stream=True)
    theirs.talk(ours)
    stream = ours.streams[1]
    ours.connection.sender.write(ours.connection.headers(stream, encode([(":status", "200"), ("a", "b")])))
    theirs.talk(ours)
    assert theirs.of(h2.events.ResponseReceived)[0].headers == [(":status", "200"), ("a", "b")]
