"""A peer that costs more than it should is told to calm down; one that merely works is not."""

import pytest

from ketch.http2.codes import ErrorCode
from ketch.http2.compression import encode
from ketch.http2.frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PING,
    PRIORITY,
    RST_STREAM,
    WINDOW_UPDATE,
    frame,
    settings,
)
from ketch.http2.limits import Limits

BLOCK = encode([(":method", "POST"), (":scheme", "http"), (":path", "/a/B")])


def whole(stream_id):
    return frame(HEADERS, END_HEADERS | END_STREAM, stream_id, BLOCK)


FLOODS = {
    "pings": frame(PING, 0, 0, bytes(8)) * 5000,
    "settings": settings([]) * 5000,
    "priorities": frame(PRIORITY, 0, 9, bytes(5)) * 5000,
    "unknown frames": frame(99, 0, 0) * 5000,
    "empty DATA": frame(HEADERS, END_HEADERS, 1, BLOCK) + frame(DATA, 0, 1) * 5000,
    "padding only": frame(HEADERS, END_HEADERS, 1, BLOCK) + frame(DATA, 0x8, 1, b"\0") * 5000,
    "rapid reset (CVE-2023-44487)": b"".join(
        whole(stream_id) + frame(RST_STREAM, 0, stream_id, bytes(4)) for stream_id in range(1, 10_001, 2)
    ),
    "made to reset (CVE-2025-8671)": b"".join(
        whole(stream_id) + frame(DATA, 0, stream_id, b"x") for stream_id in range(1, 10_001, 2)
    ),
    "empty CONTINUATION (CVE-2024-27316)": frame(HEADERS, 0, 1, BLOCK) + frame(CONTINUATION, 0, 1) * 5000,
    "large CONTINUATION": frame(HEADERS, 0, 1, BLOCK) + frame(CONTINUATION, 0, 1, bytes(16_000)) * 10,
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_ends_the_connection(server, name):
    server.connection.receive(FLOODS[name])
    assert server.error == ErrorCode.ENHANCE_YOUR_CALM


def test_the_same_frames_at_a_humane_pace_are_fine(server):
    for _ in range(5000):
        server.now += 1
        server.connection.receive(frame(PING, 0, 0, bytes(8)) + settings([]) + frame(PRIORITY, 0, 9, bytes(5)))
        server.take()
    assert server.error is None


def test_a_peer_that_pings_once_for_each_piece_of_data_it_got_measures_its_window(server):
    server.connection.receive(whole(1))
    for _ in range(5000):
        server.connection.sender.message(server.streams[1], b"", b"x", end=False)
        server.connection.receive(frame(PING, 0, 0, bytes(8)) + frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\1"))
        server.connection.receive(frame(WINDOW_UPDATE, 0, 1, b"\0\0\0\1"))
        server.take()
    assert server.error is None
    server.connection.receive(FLOODS["pings"])
    assert server.error == ErrorCode.ENHANCE_YOUR_CALM


def test_a_peer_that_cancels_half_of_its_calls_is_not_an_attacker(server):
    for stream_id in range(1, 20_001, 4):
        server.connection.receive(whole(stream_id) + whole(stream_id + 2))
        server.connection.end(server.streams.pop(stream_id), b"")
        server.connection.receive(frame(RST_STREAM, 0, stream_id + 2, bytes(4)))
        server.take()
    assert server.error is None
    assert not server.connection.streams


def test_answers_that_arent_read_dont_pile_up(make_side):
    side = make_side().start()
    for _ in range(400):
        side.now += 10_000  # as slowly as the rate allows: what counts is that nothing is read
        side.connection.receive(frame(PING, 0, 0, bytes(8)) * 400)
        side.connection.sender.taken(paused=True)
    assert side.error == ErrorCode.ENHANCE_YOUR_CALM


def test_streams_beyond_the_limit_are_refused_and_the_rest_goes_on(make_side):
    server = make_side(limits=Limits(max_streams=2)).start()
    server.connection.receive(whole(1) + whole(3) + whole(5))
    assert [entry for entry in server.take() if entry[0] == RST_STREAM] == [
        (RST_STREAM, 0, 5, ErrorCode.REFUSED_STREAM.to_bytes(4))
    ]
    server.connection.end(server.streams[1], b"")
    server.connection.receive(whole(7))
    assert set(server.connection.streams) == {3, 7}


def test_a_header_bomb_is_cut_short(server):
    """One entry of 4000 bytes in the table, then 60,000 references to it: 240 MB if taken at its word."""
    entry = b"\x40\x01a\x7f\xa1\x1e" + bytes(4000).replace(b"\0", b"x")
    server.connection.receive(frame(HEADERS, END_HEADERS | END_STREAM, 1, BLOCK + entry + b"\xbe" * 60_000))
    ((_, kind, fields, _),) = server.log
    assert kind == "headers"
    assert sum(len(name) + len(value) for name, value in fields) < server.connection.limits.max_header_list


def test_what_is_remembered_of_header_blocks_is_bounded(server):
    for number in range(3000):
        block = encode([(":method", "POST"), (":scheme", "http"), (":path", f"/{number}"), ("x", "y" * 900)])
        server.connection.receive(frame(HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, block))
        server.connection.end(server.streams.pop(2 * number + 1), b"")
        server.take()
    decoder = server.connection._decoder
    assert sum(map(len, decoder.blocks)) < 1_100_000


def test_a_frame_that_never_ends_ends_the_connection_and_no_other_pause_does(server):
    first, second, third = whole(1), whole(3), whole(5)
    for piece in (first[:5], first[5:] + second[:4], second[4:], b"", third[:5]):
        server.connection.receive(piece)
        server.connection.check_progress()
    assert server.error is None
    server.connection.receive(third[5:12])
    server.connection.check_progress()
    assert server.error is ErrorCode.ENHANCE_YOUR_CALM
