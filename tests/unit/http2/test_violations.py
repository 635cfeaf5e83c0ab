"""Every violation gets the error that RFC 9113 names, for the stream or for the connection."""

import struct

import pytest

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
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
    settings,
)
from ketch.http2.limits import CLIENT_FRAME, Limits

REQUEST = [(":method", "POST"), (":scheme", "http"), (":path", "/a/B"), (":authority", "x")]
BLOCK = encode(REQUEST)
OPEN = frame(HEADERS, END_HEADERS, 1, BLOCK)
WHOLE = frame(HEADERS, END_HEADERS | END_STREAM, 1, BLOCK)
WHOLE_3 = frame(HEADERS, END_HEADERS | END_STREAM, 3, BLOCK)
OK_1 = frame(HEADERS, END_HEADERS, 1, b"\x88")
WORD = struct.Struct(">I").pack


def block(*fields):
    return encode(fields)


CONNECTION_ERRORS = {
    "frame larger than allowed (4.2)": (frame(PING, 0, 0, bytes(70_000)), "FRAME_SIZE_ERROR"),
    "DATA on stream 0 (6.1)": (frame(DATA, 0, 0, b"x"), "PROTOCOL_ERROR"),
    "DATA on an idle stream (5.1)": (frame(DATA, 0, 1, b"x"), "PROTOCOL_ERROR"),
    "DATA with too much padding (6.1)": (OPEN + frame(DATA, PADDED, 1, b"\x05abcd"), "PROTOCOL_ERROR"),
    "DATA padded without length (6.1)": (OPEN + frame(DATA, PADDED, 1, b""), "FRAME_SIZE_ERROR"),
    "HEADERS on stream 0 (6.2)": (frame(HEADERS, END_HEADERS, 0, BLOCK), "PROTOCOL_ERROR"),
    "HEADERS on an even stream (5.1.1)": (frame(HEADERS, END_HEADERS, 2, BLOCK), "PROTOCOL_ERROR"),
    "HEADERS on an older stream (5.1.1)": (
        frame(HEADERS, END_HEADERS | END_STREAM, 5, BLOCK) + WHOLE_3,
        "PROTOCOL_ERROR",
    ),
    "HEADERS with too much padding (6.2)": (
        frame(HEADERS, END_HEADERS | PADDED, 1, b"\xff" + BLOCK),
        "PROTOCOL_ERROR",
    ),
    "HEADERS too short for its priority (6.2)": (
        frame(HEADERS, END_HEADERS | HAS_PRIORITY, 1, b"abc"),
        "FRAME_SIZE_ERROR",
    ),
    "HEADERS within a header block (6.10)": (frame(HEADERS, 0, 1, BLOCK) + WHOLE_3, "PROTOCOL_ERROR"),
    "PING within a header block (6.10)": (frame(HEADERS, 0, 1, BLOCK) + frame(PING, 0, 0, bytes(8)), "PROTOCOL_ERROR"),
    "unknown frame within a header block (5.5)": (frame(HEADERS, 0, 1, BLOCK) + frame(99, 0, 1), "PROTOCOL_ERROR"),
    "CONTINUATION of another stream (6.10)": (
        frame(HEADERS, 0, 1, BLOCK) + frame(CONTINUATION, END_HEADERS, 3),
        "PROTOCOL_ERROR",
    ),
    "CONTINUATION of nothing (6.10)": (frame(CONTINUATION, END_HEADERS, 1, BLOCK), "PROTOCOL_ERROR"),
    "CONTINUATION after the end of a block (6.10)": (
        OPEN + frame(CONTINUATION, END_HEADERS, 1, BLOCK),
        "PROTOCOL_ERROR",
    ),
    "PRIORITY on stream 0 (6.3)": (frame(PRIORITY, 0, 0, bytes(5)), "PROTOCOL_ERROR"),
    "RST_STREAM on stream 0 (6.4)": (frame(RST_STREAM, 0, 0, bytes(4)), "PROTOCOL_ERROR"),
    "RST_STREAM on an idle stream (6.4)": (frame(RST_STREAM, 0, 1, bytes(4)), "PROTOCOL_ERROR"),
    "RST_STREAM of a wrong size (6.4)": (OPEN + frame(RST_STREAM, 0, 1, bytes(3)), "FRAME_SIZE_ERROR"),
    "SETTINGS on a stream (6.5)": (frame(SETTINGS, 0, 1), "PROTOCOL_ERROR"),
    "SETTINGS acknowledged with content (6.5)": (frame(SETTINGS, ACK, 0, bytes(6)), "FRAME_SIZE_ERROR"),
    "SETTINGS of a broken length (6.5)": (frame(SETTINGS, 0, 0, bytes(5)), "FRAME_SIZE_ERROR"),
    "ENABLE_PUSH neither 0 nor 1 (6.5.2)": (settings([(2, 2)]), "PROTOCOL_ERROR"),
    "INITIAL_WINDOW_SIZE too large (6.5.2)": (settings([(4, 2**31)]), "FLOW_CONTROL_ERROR"),
    "MAX_FRAME_SIZE too small (6.5.2)": (settings([(5, 16_383)]), "PROTOCOL_ERROR"),
    "MAX_FRAME_SIZE too large (6.5.2)": (settings([(5, 2**24)]), "PROTOCOL_ERROR"),
    "INITIAL_WINDOW_SIZE overflows a stream (6.9.2)": (
        OPEN + frame(WINDOW_UPDATE, 0, 1, WORD(2**31 - 65_536)) + settings([(4, 2**31 - 1)]),
        "FLOW_CONTROL_ERROR",
    ),
    "PUSH_PROMISE from a client (8.4)": (OPEN + frame(PUSH_PROMISE, END_HEADERS, 1, WORD(2)), "PROTOCOL_ERROR"),
    "PING on a stream (6.7)": (frame(PING, 0, 1, bytes(8)), "PROTOCOL_ERROR"),
    "PING of a wrong size (6.7)": (frame(PING, 0, 0, bytes(6)), "FRAME_SIZE_ERROR"),
    "GOAWAY on a stream (6.8)": (frame(GOAWAY, 0, 1, bytes(8)), "PROTOCOL_ERROR"),
    "GOAWAY of a wrong size (6.8)": (frame(GOAWAY, 0, 0, bytes(7)), "FRAME_SIZE_ERROR"),
    "WINDOW_UPDATE by nothing (6.9)": (frame(WINDOW_UPDATE, 0, 0, bytes(4)), "PROTOCOL_ERROR"),
    "WINDOW_UPDATE of a wrong size (6.9)": (frame(WINDOW_UPDATE, 0, 0, bytes(3)), "FRAME_SIZE_ERROR"),
    "WINDOW_UPDATE on an idle stream (5.1)": (frame(WINDOW_UPDATE, 0, 1, WORD(1)), "PROTOCOL_ERROR"),
    "WINDOW_UPDATE beyond 2**31-1 (6.9.1)": (frame(WINDOW_UPDATE, 0, 0, WORD(2**31 - 1)), "FLOW_CONTROL_ERROR"),
    "index beyond the table (RFC 7541 2.3.3)": (frame(HEADERS, END_HEADERS, 1, b"\xff\x7f"), "COMPRESSION_ERROR"),
    "index 0 (RFC 7541 6.1)": (frame(HEADERS, END_HEADERS, 1, b"\x80"), "COMPRESSION_ERROR"),
    "literal cut off (RFC 7541 5.2)": (frame(HEADERS, END_HEADERS, 1, b"\x00\x05ab"), "COMPRESSION_ERROR"),
    "endless integer (RFC 7541 5.1)": (frame(HEADERS, END_HEADERS, 1, b"\xff" * 20), "COMPRESSION_ERROR"),
    "broken Huffman code (RFC 7541 5.2)": (
        frame(HEADERS, END_HEADERS, 1, b"\x00\x84" + b"\xff" * 4),
        "COMPRESSION_ERROR",
    ),
    "table larger than allowed (RFC 7541 6.3)": (frame(HEADERS, END_HEADERS, 1, b"\x3f\xe2\x1f"), "COMPRESSION_ERROR"),
    "table update after a field (RFC 7541 4.2)": (frame(HEADERS, END_HEADERS, 1, b"\x83\x20"), "COMPRESSION_ERROR"),
}

STREAM_ERRORS = {
    "no :method (8.3.1)": (block(*REQUEST[1:]), "PROTOCOL_ERROR"),
    "no :path (8.3.1)": (block(*REQUEST[:2], REQUEST[3]), "PROTOCOL_ERROR"),
    "no :scheme (8.3.1)": (block(REQUEST[0], *REQUEST[2:]), "PROTOCOL_ERROR"),
    "empty :path (8.3.1)": (block(*REQUEST[:2], (":path", "")), "PROTOCOL_ERROR"),
    "repeated pseudo-header (8.3)": (block(*REQUEST, REQUEST[0]), "PROTOCOL_ERROR"),
    "unknown pseudo-header (8.3)": (block(*REQUEST, (":what", "x")), "PROTOCOL_ERROR"),
    "a response's pseudo-header (8.3)": (block(*REQUEST, (":status", "200")), "PROTOCOL_ERROR"),
    "pseudo-header after a field (8.3)": (block(REQUEST[0], ("a", "b"), *REQUEST[1:]), "PROTOCOL_ERROR"),
    "upper case (8.2.1)": (block(*REQUEST, ("Upper", "b")), "PROTOCOL_ERROR"),
    "empty name (8.2.1)": (block(*REQUEST, ("", "b")), "PROTOCOL_ERROR"),
    "line break in a value (8.2.1)": (block(*REQUEST, ("a", "b\r\nc")), "PROTOCOL_ERROR"),
    "space around a value (8.2.1)": (block(*REQUEST, ("a", " b")), "PROTOCOL_ERROR"),
    "connection-specific field (8.2.2)": (block(*REQUEST, ("connection", "close")), "PROTOCOL_ERROR"),
    "te other than trailers (8.2.2)": (block(*REQUEST, ("te", "gzip")), "PROTOCOL_ERROR"),
    "content-length that is none (8.1.1)": (block(*REQUEST, ("content-length", "1x")), "PROTOCOL_ERROR"),
    "no body but one announced (8.1.1)": (block(*REQUEST, ("content-length", "3")), "PROTOCOL_ERROR"),
    "NUL in a value (8.2.1)": (block(*REQUEST, ("a", "b\0c")), "PROTOCOL_ERROR"),
    "space in a name (8.2.1)": (block(*REQUEST, ("a b", "c")), "PROTOCOL_ERROR"),
    "colon in a name (8.2.1)": (block(*REQUEST, ("a:b", "c")), "PROTOCOL_ERROR"),
    "DEL in a name (8.2.1)": (block(*REQUEST, ("a\x7f", "c")), "PROTOCOL_ERROR"),
    "beyond ASCII in a name (8.2.1)": (block(*REQUEST, ("a\xe4", "c")), "PROTOCOL_ERROR"),
    "transfer-encoding (8.2.2)": (block(*REQUEST, ("transfer-encoding", "chunked")), "PROTOCOL_ERROR"),
    "upgrade (8.2.2)": (block(*REQUEST, ("upgrade", "h2c")), "PROTOCOL_ERROR"),
    "keep-alive (8.2.2)": (block(*REQUEST, ("keep-alive", "1")), "PROTOCOL_ERROR"),
    "no fields at all (8.3.1)": (b"", "PROTOCOL_ERROR"),
}

LATER_STREAM_ERRORS = {
    "WINDOW_UPDATE by nothing (6.9)": (OPEN + frame(WINDOW_UPDATE, 0, 1, bytes(4)), "PROTOCOL_ERROR"),
    "WINDOW_UPDATE beyond 2**31-1 (6.9.1)": (OPEN + frame(WINDOW_UPDATE, 0, 1, WORD(2**31 - 1)), "FLOW_CONTROL_ERROR"),
    "PRIORITY of a wrong size (6.3)": (OPEN + frame(PRIORITY, 0, 1, bytes(4)), "FRAME_SIZE_ERROR"),
    "PRIORITY on itself (5.3.1)": (OPEN + frame(PRIORITY, 0, 1, WORD(1) + b"\0"), "PROTOCOL_ERROR"),
    "HEADERS that depend on themselves (5.3.1)": (
        frame(HEADERS, END_HEADERS | HAS_PRIORITY, 1, WORD(1) + b"\0" + BLOCK),
        "PROTOCOL_ERROR",
    ),
    "DATA after the end (5.1)": (WHOLE + frame(DATA, 0, 1, b"x"), "STREAM_CLOSED"),
    "HEADERS after the end (5.1)": (WHOLE + WHOLE, "STREAM_CLOSED"),
    "trailers without end (8.1)": (OPEN + frame(HEADERS, END_HEADERS, 1, block(("a", "b"))), "PROTOCOL_ERROR"),
    "pseudo-header in trailers (8.1)": (
        OPEN + frame(HEADERS, END_HEADERS | END_STREAM, 1, block(("a", "b"), (":path", "/"))),
        "PROTOCOL_ERROR",
    ),
    "less body than announced (8.1.1)": (
        frame(HEADERS, END_HEADERS, 1, block(*REQUEST, ("content-length", "3"))) + frame(DATA, END_STREAM, 1, b"ab"),
        "PROTOCOL_ERROR",
    ),
    "more body than announced (8.1.1)": (
        frame(HEADERS, END_HEADERS, 1, block(*REQUEST, ("content-length", "3"))) + frame(DATA, 0, 1, b"abcd"),
        "PROTOCOL_ERROR",
    ),
    "no body but one announced (8.1.1)": (
        frame(HEADERS, END_HEADERS, 1, block(*REQUEST, ("content-length", "3"))) + frame(DATA, END_STREAM, 1),
        "PROTOCOL_ERROR",
    ),
    "more data than the stream's window (6.9.1)": (
        OPEN + frame(DATA, 0, 1, bytes(60_000)) * 3,
        "FLOW_CONTROL_ERROR",
    ),
}


def goaway_code(frames):
    return [struct.unpack_from(">II", payload)[1] for kind, _, _, payload in frames if kind == GOAWAY]


def resets(frames):
    return [(stream, struct.unpack(">I", payload)[0]) for kind, _, stream, payload in frames if kind == RST_STREAM]


@pytest.mark.parametrize("name", CONNECTION_ERRORS)
def test_a_violation_of_the_connections_rules_ends_it(server, name):
    data, code = CONNECTION_ERRORS[name]
    server.connection.receive(data)
    assert goaway_code(server.take()) == [ErrorCode[code]]
    assert server.error == ErrorCode[code]
    server.connection.receive(frame(PING, 0, 0, bytes(8)))
    assert server.take() == []


@pytest.mark.parametrize("name", STREAM_ERRORS)
def test_a_malformed_request_resets_its_stream_only(server, name):
    data, code = STREAM_ERRORS[name]
    server.connection.receive(frame(HEADERS, END_HEADERS | END_STREAM, 1, data))
    assert resets(server.take()) == [(1, ErrorCode[code])]
    assert server.error is None
    server.connection.receive(WHOLE_3)
    assert server.streams[3].ended


@pytest.mark.parametrize("name", LATER_STREAM_ERRORS)
def test_a_violation_of_a_streams_rules_resets_it_only(server, name):
    data, code = LATER_STREAM_ERRORS[name]
    server.connection.receive(data)
    assert resets(server.take()) == [(1, ErrorCode[code])]
    assert server.error is None
    if 1 in server.streams:
        assert server.streams[1].reset == (ErrorCode[code], False)
        assert server.streams[1].closed
    server.connection.receive(WHOLE_3)
    assert server.streams[3].ended


def test_a_frame_that_is_too_large_is_one_behind_known_headers_too(make_side):
    server = make_side(limits=Limits()).start()
    server.connection.receive(OPEN + frame(DATA, END_STREAM, 1, b"x"))
    server.connection.receive(frame(HEADERS, END_HEADERS, 3, BLOCK) + frame(DATA, END_STREAM, 3, bytes(16_385)))
    assert server.error == ErrorCode.FRAME_SIZE_ERROR


def test_more_data_than_the_connections_window_ends_it(make_side):
    server = make_side(limits=Limits(max_frame=CLIENT_FRAME, stream_window=2**20, connection_window=65_535)).start()
    server.connection.receive(OPEN + frame(DATA, 0, 1, bytes(65_000)))
    server.connection.receive(b"")
    assert server.error is None
    # The window is opened as data comes, so only what comes at once can break it.
    server.connection._windows.left = 10
    server.connection.receive(frame(DATA, 0, 1, bytes(11)))
    assert server.error == ErrorCode.FLOW_CONTROL_ERROR


@pytest.mark.parametrize(
    "first", [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02", b"PRI * HTTP/2.0\r\n\r\nXX", bytes(24)]
)
def test_a_peer_that_doesnt_start_like_http2_is_turned_away(make_side, first):
    server = make_side()
    server.connection.receive(first)
    assert server.error == ErrorCode.PROTOCOL_ERROR


@pytest.mark.parametrize("second", [frame(PING, 0, 0, bytes(8)), frame(SETTINGS, ACK, 0), WHOLE])
def test_a_peer_whose_first_frame_isnt_settings_is_turned_away(make_side, second):
    server = make_side()
    server.connection.receive(PREFACE + second)
    assert server.error == ErrorCode.PROTOCOL_ERROR


SERVERS_ERRORS = {
    "ENABLE_PUSH from a server (6.5.2)": (settings([(2, 1)]), "PROTOCOL_ERROR"),
    "a stream that the server opens (5.1.1)": (frame(HEADERS, END_HEADERS, 2, b"\x88"), "PROTOCOL_ERROR"),
    "a response to nothing (5.1)": (frame(HEADERS, END_HEADERS, 3, b"\x88"), "PROTOCOL_ERROR"),
    "DATA on an idle stream (5.1)": (frame(DATA, 0, 3, b"x"), "PROTOCOL_ERROR"),
    "RST_STREAM on an idle stream (6.4)": (frame(RST_STREAM, 0, 3, bytes(4)), "PROTOCOL_ERROR"),
    "WINDOW_UPDATE on an idle stream (5.1)": (frame(WINDOW_UPDATE, 0, 3, WORD(1)), "PROTOCOL_ERROR"),
    "PUSH_PROMISE though it is switched off (8.4)": (frame(PUSH_PROMISE, END_HEADERS, 1, WORD(2)), "PROTOCOL_ERROR"),
    "HEADERS after the end (5.1)": (
        frame(HEADERS, END_HEADERS | END_STREAM, 1, b"\x88") * 2,
        "STREAM_CLOSED",
    ),
    "a header block that is broken (4.3)": (frame(HEADERS, END_HEADERS, 1, b"\xff" * 9), "COMPRESSION_ERROR"),
    "GOAWAY on a stream (6.8)": (frame(GOAWAY, 0, 1, bytes(8)), "PROTOCOL_ERROR"),
    "frame larger than allowed (4.2)": (frame(HEADERS, END_HEADERS, 1, bytes(70_000)), "FRAME_SIZE_ERROR"),
    "DATA larger than allowed (4.2)": (frame(DATA, 0, 1, bytes(CLIENT_FRAME + 1)), "FRAME_SIZE_ERROR"),
}


@pytest.mark.parametrize("name", SERVERS_ERRORS)
def test_a_server_that_breaks_the_connections_rules_is_left(client, name):
    data, code = SERVERS_ERRORS[name]
    stream = client.open()
    client.connection.sender.message(stream, client.connection.headers(stream, BLOCK), b"", end=True)
    client.take()
    client.connection.receive(data)
    assert client.error == ErrorCode[code]
    assert goaway_code(client.take()) == [ErrorCode[code]]
    assert stream.closed


SHORT = frame(HEADERS, END_HEADERS, 1, block((":status", "200"), ("content-length", "3")))
MALFORMED_RESPONSES = {
    "no :status (8.3.2)": frame(HEADERS, END_HEADERS, 1, block(("a", "b"))),
    "no fields at all (8.3.2)": frame(HEADERS, END_HEADERS, 1, b""),
    "a :status that is none (8.3.2)": frame(HEADERS, END_HEADERS, 1, block((":status", "20"))),
    "a :status in other digits (8.3.2)": frame(HEADERS, END_HEADERS, 1, block((":status", "2\xb2\xb2"))),
    "a request's pseudo-header (8.3)": frame(HEADERS, END_HEADERS, 1, block((":status", "200"), (":path", "/"))),
    "upper case (8.2.1)": frame(HEADERS, END_HEADERS, 1, block((":status", "200"), ("A", "b"))),
    "empty name (8.2.1)": frame(HEADERS, END_HEADERS, 1, block((":status", "200"), ("", "b"))),
    "connection-specific field (8.2.2)": frame(HEADERS, END_HEADERS, 1, block((":status", "200"), ("upgrade", "x"))),
    "content-length that is none (8.1.1)": frame(
        HEADERS, END_HEADERS, 1, block((":status", "200"), ("content-length", "-3"))
    ),
    "more body than announced (8.1.1)": SHORT + frame(DATA, 0, 1, b"abcd"),
    "less body than announced (8.1.1)": SHORT + frame(DATA, END_STREAM, 1, b"ab"),
    "trailers before the announced body (8.1.1)": SHORT
    + frame(HEADERS, END_HEADERS | END_STREAM, 1, block(("a", "b"))),
    "pseudo-header in trailers (8.1)": OK_1
    + frame(HEADERS, END_HEADERS | END_STREAM, 1, block(("a", "b"), (":path", "/"))),
    "trailers that don't end the stream (8.1)": OK_1 + frame(HEADERS, END_HEADERS, 1, block(("a", "b"))),
}


@pytest.mark.parametrize("name", MALFORMED_RESPONSES)
def test_a_malformed_response_resets_its_stream(client, name):
    stream, other = client.open(), client.open()
    client.connection.receive(MALFORMED_RESPONSES[name])
    assert stream.reset == (ErrorCode.PROTOCOL_ERROR, False)
    assert resets(client.take()) == [(1, ErrorCode.PROTOCOL_ERROR)]
    assert client.error is None
    client.connection.receive(frame(HEADERS, END_HEADERS | END_STREAM, 3, b"\x88"))
    assert other.ended


def test_a_response_without_body_may_announce_the_length_that_it_would_have(client):
    stream = client.open()
    fields = block((":status", "304"), ("content-length", "3"))
    client.connection.receive(frame(HEADERS, END_HEADERS | END_STREAM, 1, fields))
    assert stream.ended
    assert stream.reset is None


def test_a_malformed_request_is_not_shown_to_anybody(server):
    for stream_id, (data, _) in zip(range(1, 1000, 2), STREAM_ERRORS.values(), strict=False):
        server.connection.receive(frame(HEADERS, END_HEADERS | END_STREAM, stream_id, data))
    assert not server.streams
    assert not server.connection.streams


def test_what_breaks_off_the_last_stream_that_may_break_is_told_to_it_too(server):
    """That one more reset ends the connection must not keep it from the stream, whose handler would run for ever."""
    for stream_id in range(1, 2101, 2):
        server.connection.receive(frame(HEADERS, END_HEADERS, stream_id, BLOCK))
        server.connection.receive(frame(WINDOW_UPDATE, 0, stream_id, bytes(4)))
    assert server.error == ErrorCode.ENHANCE_YOUR_CALM
    assert len(server.streams) > 900
    assert all(stream.reset is not None for stream in server.streams.values())


def test_a_body_that_is_too_short_is_never_handed_on_as_whole(server):
    data, _ = LATER_STREAM_ERRORS["less body than announced (8.1.1)"]
    server.connection.receive(data)
    assert not server.streams[1].ended


def test_what_the_peer_sent_before_it_knew_of_a_reset_is_ignored(server):
    server.connection.receive(OPEN)
    server.connection.reset(server.streams[1], ErrorCode.CANCEL)
    server.take()
    trailers = frame(HEADERS, END_HEADERS | END_STREAM, 1, block(("a", "b")))
    server.connection.receive(frame(DATA, 0, 1, b"late") + frame(WINDOW_UPDATE, 0, 1, WORD(1)) + trailers)
    assert server.take() == []
    assert server.error is None


def test_data_on_a_stream_that_ended_long_ago_is_refused(server):
    server.connection.receive(WHOLE)
    stream = server.streams[1]
    server.connection.end(stream, block(("a", "b")))
    server.take()
    server.connection.receive(frame(DATA, 0, 1, b"late"))
    assert resets(server.take()) == [(1, ErrorCode.STREAM_CLOSED)]


def test_headers_on_a_stream_that_ended_end_the_connection(server):
    server.connection.receive(WHOLE)
    server.connection.end(server.streams[1], block(("a", "b")))
    server.connection.receive(WHOLE)
    assert server.error == ErrorCode.STREAM_CLOSED


def test_unknown_frames_and_settings_and_flags_are_ignored(server):
    server.connection.receive(frame(99, 0xFF, 0, b"?") + frame(99, 0xFF, 7, b"?") + settings([(0xFF, 1)]))
    server.connection.receive(frame(PING, 0xF0, 0, bytes(8)) + frame(PRIORITY, 0, 9, bytes(5)))
    assert server.error is None
    assert PING in [kind for kind, *_ in server.take()]
