"""Streams and connections that behave, and how they end."""

import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from ketch.http2 import frames
from ketch.http2.codes import ErrorCode
from ketch.http2.compression import encode
from ketch.http2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HAS_PRIORITY,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
)

REQUEST = [(":method", "POST"), (":scheme", "http"), (":path", "/a/B"), ("x-long", "y" * 200)]
BLOCK = encode(REQUEST)
OPEN = frame(HEADERS, END_HEADERS, 1, BLOCK)


def conversation():
    """Return all kinds of frames that a client may send."""
    return b"".join(
        (
            PREFACE,
            frames.settings([(3, 100), (4, 70_000), (99, 1)]),
            frame(HEADERS, END_HEADERS | PADDED | HAS_PRIORITY, 1, b"\x03\0\0\0\0\x10" + BLOCK + bytes(3)),
            frame(DATA, PADDED, 1, b"\x02hello\0\0"),
            frame(PING, 0, 0, b"12345678"),
            frame(HEADERS, 0, 3, BLOCK[:50]),
            frame(CONTINUATION, 0, 3, BLOCK[50:51]),
            frame(CONTINUATION, 0, 3),
            frame(CONTINUATION, END_HEADERS, 3, BLOCK[51:]),
            frame(DATA, END_STREAM, 3, b"x" * 1000),
            frame(HEADERS, END_HEADERS | END_STREAM, 1, encode([("a", "b")])),
            frame(HEADERS, END_HEADERS, 5, BLOCK),
            frame(RST_STREAM, 0, 5, bytes(4)),
            frame(HEADERS, END_HEADERS, 7, BLOCK),
            frame(DATA, END_STREAM, 7, b"a whole call, read in one go"),
            frame(HEADERS, END_HEADERS, 9, BLOCK),
            frame(DATA, END_STREAM, 9, b"and another one"),
            frame(HEADERS, END_HEADERS, 11, BLOCK),
            frame(DATA, 0, 11, b"one that goes on"),
            frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1000)),
        )
    )


@given(cuts=st.lists(st.integers(1, 60), min_size=1))
@settings(max_examples=60, deadline=None)
def test_however_the_bytes_are_cut_the_same_is_heard(cuts, make_side):
    whole, cut = make_side(), make_side()
    data = conversation()
    whole.connection.receive(data)
    at = turn = 0
    while at < len(data):
        step = cuts[turn % len(cuts)]
        cut.connection.receive(data[at : at + step])
        at += step
        turn += 1
    assert merged(cut.log) == merged(whole.log)
    assert cut.take() == whole.take()
    assert cut.error is whole.error is None


def merged(log):
    return [entry for entry in log if entry[1] != "data"], b"".join(entry[2] for entry in log if entry[1] == "data")


@given(garbage=st.binary(max_size=400), after=st.sampled_from([0, 24, 70, 500, 10_000]))
@settings(max_examples=300, deadline=None)
def test_garbage_ends_the_connection_or_is_waited_out_but_never_raises(garbage, after, make_side):
    side = make_side()
    side.connection.receive(conversation()[:after] + garbage)
    if side.errors:
        assert side.take()[-1][0] == GOAWAY
        assert all(stream.closed for stream in side.streams.values())
        assert not side.connection.streams


@given(kind=st.integers(0, 12), flags=st.integers(0, 255), stream=st.integers(0, 9), payload=st.binary(max_size=40))
@settings(max_examples=500, deadline=None)
def test_any_single_frame_is_dealt_with(kind, flags, stream, payload, make_side):
    for client in (False, True):
        side = make_side(client=client).start()
        if client:
            side.open()
        else:
            side.connection.receive(OPEN)
        side.connection.receive(frame(kind, flags, stream, payload))
        side.connection.receive(frame(PING, 0, 0, b"are you?"))
        answers = side.take()
        in_block = kind == HEADERS and not flags & END_HEADERS
        assert side.error is not None or in_block or (PING, ACK, 0, b"are you?") in answers


def test_settings_are_acknowledged_and_ours_are_sent_first(make_side, split_frames):
    side = make_side()
    first, *_ = split_frames(side.connection.sender.take())
    assert first[0] == SETTINGS
    side.connection.receive(PREFACE + frames.settings([(4, 1)]))
    assert (SETTINGS, ACK, 0, b"") in side.take()


def test_a_ping_is_answered_with_its_own_payload(server):
    server.connection.receive(frame(PING, 0, 0, b"12345678"))
    assert server.take() == [(PING, ACK, 0, b"12345678")]
    server.connection.ping(b"87654321")
    server.connection.receive(frame(PING, ACK, 0, b"87654321"))
    assert server.pongs == [b"87654321"]


def test_a_table_that_the_peer_shrinks_is_said_to_be_empty(client):
    client.connection.receive(frames.settings([(1, 0)]))
    client.take()
    first, second = client.open(), client.open()
    assert client.connection.headers(first, BLOCK)[9:10] == b"\x20"
    assert client.connection.headers(second, BLOCK)[9:] == BLOCK


def test_a_large_header_block_is_sent_as_continuations(client, split_frames):
    block = encode([("x", "y" * 40_000)])
    parts = split_frames(client.connection.headers(client.open(), block))
    assert [kind for kind, *_ in parts] == [HEADERS, CONTINUATION, CONTINUATION]
    assert [flags for _, flags, *_ in parts] == [0, 0, END_HEADERS]
    assert b"".join(payload for *_, payload in parts) == block


def test_goaway_fails_the_streams_that_the_server_didnt_look_at(client):
    first, second = client.open(), client.open()
    client.connection.receive(frame(GOAWAY, 0, 0, struct.pack(">II", 1, 0) + b"bye"))
    assert first.reset is None
    assert second.reset == (0, True)
    assert client.goaways == [(0, "bye")]
    assert client.connection.streams.room == 0
    client.connection.receive(frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\x88"))
    assert first.ended


def test_a_refused_stream_says_so(client):
    stream = client.open()
    client.connection.receive(frame(RST_STREAM, 0, 1, struct.pack(">I", ErrorCode.REFUSED_STREAM)))
    assert stream.reset == (ErrorCode.REFUSED_STREAM, True)


def test_after_goaway_late_streams_are_ignored_and_the_others_finish(server):
    server.connection.receive(OPEN)
    server.connection.announce_end()
    server.connection.receive(frame(HEADERS, END_HEADERS, 3, BLOCK))
    server.connection.refuse_more()
    late = frame(HEADERS, END_HEADERS, 5, BLOCK) + frame(DATA, 0, 5, b"x")
    late += frame(HEADERS, END_HEADERS | END_STREAM, 5, encode([("a", "b")]))
    server.connection.receive(late + frame(DATA, END_STREAM, 1, b"rest") + frame(DATA, END_STREAM, 3, b"too"))
    assert set(server.streams) == {1, 3}
    assert server.streams[1].ended
    assert server.streams[3].ended
    lasts = [struct.unpack_from(">I", payload)[0] for kind, _, _, payload in server.take() if kind == GOAWAY]
    assert lasts == [2**31 - 1, 3]


def test_a_lost_connection_resets_every_stream(server):
    server.connection.receive(OPEN + frame(HEADERS, END_HEADERS, 3, BLOCK))
    server.connection.lose("gone")
    assert all(stream.reset is not None and stream.closed for stream in server.streams.values())


def test_a_block_is_decoded_anew_once_the_table_has_changed(server):
    """`0xbe` is the newest entry of the dynamic table: the same block means something else each time."""
    add = [b"\x40\x01k\x02v%d" % number for number in range(2)]
    base = encode(REQUEST[:3])
    for number, entry in enumerate(add):
        server.connection.receive(frame(HEADERS, END_HEADERS | END_STREAM, 4 * number + 1, base + entry))
        server.connection.receive(frame(HEADERS, END_HEADERS | END_STREAM, 4 * number + 3, base + b"\xbe"))
    seen = [fields[-1] for _, kind, fields, _ in server.log]
    assert seen == [("k", "v0"), ("k", "v0"), ("k", "v1"), ("k", "v1")]
