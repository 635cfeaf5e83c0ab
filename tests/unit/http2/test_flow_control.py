"""Windows, both ways (RFC 9113 section 5.2)."""

import struct

from ketch.http2.compression import encode
from ketch.http2.frames import ACK, DATA, END_HEADERS, END_STREAM, HEADERS, PADDED, PING, WINDOW_UPDATE, frame, settings
from ketch.http2.limits import CLIENT_FRAME, Limits
from ketch.http2.sender import Outgoing, Sender
from ketch.http2.windows import MEASURE

BLOCK = encode([(":method", "POST"), (":scheme", "http"), (":path", "/a/B")])
OPEN = frame(HEADERS, END_HEADERS, 1, BLOCK)


def update(stream_id, increment):
    return frame(WINDOW_UPDATE, 0, stream_id, struct.pack(">I", increment))


def sent(frames, stream_id=1):
    return b"".join(payload for kind, _, stream, payload in frames if kind == DATA and stream == stream_id)


def updates(frames, stream_id):
    return sum(
        int.from_bytes(payload) for kind, _, stream, payload in frames if kind == WINDOW_UPDATE and stream == stream_id
    )


def test_a_message_waits_for_the_streams_window_and_goes_on(client):
    stream = client.open()
    message = bytes(range(250)) * 1000
    assert not client.connection.sender.message(stream, b"", message, end=True)
    got = sent(client.take())
    assert len(got) == 65_535
    client.connection.receive(update(0, 10_000_000) + update(1, 100_000))
    got += sent(client.take())
    assert len(got) == 165_535
    assert not stream.sent_end
    client.connection.receive(update(1, 100_000))
    frames = client.take()
    got += sent(frames)
    assert got == message
    assert frames[-1][1] == END_STREAM
    assert stream.sent_end
    assert (1, "drained") in client.log


def test_no_frame_is_larger_than_the_peer_allows(client):
    client.connection.receive(update(0, 10_000_000) + settings([(4, 1_000_000)]))
    client.take()
    client.connection.sender.message(client.open(), b"", bytes(100_000), end=True)
    assert max(len(payload) for *_, payload in client.take()) == 16_384
    client.connection.receive(settings([(5, 20_000)]))
    client.take()
    client.connection.sender.message(client.open(), b"", bytes(100_000), end=True)
    assert max(len(payload) for *_, payload in client.take()) == 20_000


def test_streams_share_the_connections_window_in_turns(client):
    client.connection.receive(settings([(4, 1_000_000)]))
    client.take()
    first, second = client.open(), client.open()
    client.connection.sender.message(first, b"", bytes(100_000), end=True)
    client.connection.sender.message(second, b"", bytes(100_000), end=True)
    assert len(sent(client.take(), 1)) == 65_535
    got = {1: 65_535, 3: 0}
    for _ in range(14):
        client.connection.receive(update(0, 10_000))
        frames = client.take()
        for stream_id in got:
            got[stream_id] += len(sent(frames, stream_id))
    assert got == {1: 100_000, 3: 100_000}


def test_a_window_that_shrinks_below_zero_holds_back_until_it_is_open_again(client):
    stream = client.open()
    client.connection.sender.message(stream, b"", bytes(60_000), end=False)
    client.take()
    client.connection.receive(settings([(4, 10_000)]))
    assert stream.send_window == 10_000 - 60_000
    client.connection.sender.message(stream, b"", b"x", end=True)
    assert sent(client.take()) == b""
    client.connection.receive(update(1, 50_000))
    assert sent(client.take()) == b""
    client.connection.receive(update(1, 1))
    assert sent(client.take()) == b"x"


def test_an_empty_message_needs_no_window(client):
    stream = client.open()
    client.connection.sender.message(stream, b"", bytes(65_535), end=False)
    client.take()
    client.connection.sender.message(stream, b"", b"", end=True)
    assert [flags for kind, flags, *_ in client.take() if kind == DATA] == [END_STREAM]


def test_nothing_is_made_ready_for_a_socket_that_is_full(client):
    client.connection.receive(update(0, 100_000_000) + settings([(4, 100_000_000)]))
    client.take()
    stream = client.open()
    client.connection.sender.message(stream, b"", bytes(10_000_000), end=True)
    data = client.connection.sender.take()
    client.connection.sender.taken(paused=True)
    assert len(data) < 1_000_000
    assert client.connection.sender.take() == b""
    got = len(sent(client.take()))
    while not stream.sent_end:
        got += len(sent(client.take()))
    assert got > 8_000_000


def test_the_streams_window_is_opened_as_data_is_consumed(server):
    limit = server.connection.limits.stream_window
    server.connection.receive(OPEN + frame(DATA, 0, 1, bytes(50_000)) * 2)
    assert updates(server.take(), 1) == 0
    server.streams[1].consume(60_000)
    server.streams[1].consume(40_000)
    assert updates(server.take(), 1) >= limit // 2


def test_the_connections_window_is_opened_as_data_comes(make_side):
    server = make_side(
        limits=Limits(max_frame=CLIENT_FRAME, connection_window=100_000, stream_window=1_000_000)
    ).start()
    server.connection.receive(OPEN + frame(DATA, 0, 1, bytes(60_000)) * 3)
    assert server.error is None
    assert updates(server.take(), 0) > 100_000


def test_padding_counts_and_is_given_back(server):
    server.connection.receive(OPEN + frame(DATA, PADDED, 1, b"\xff" + b"body" + bytes(255)) * 300)
    assert server.streams[1].body == b"body" * 300
    assert updates(server.take(), 1) > 0


def test_data_on_a_stream_that_was_reset_counts_for_the_connection(make_side):
    server = make_side(limits=Limits(max_frame=CLIENT_FRAME, connection_window=65_535)).start()
    server.connection.receive(OPEN)
    server.connection.reset(server.streams[1], 8)
    for _ in range(10):
        server.connection.receive(frame(DATA, 0, 1, bytes(30_000)))
    assert server.error is None
    assert updates(server.take(), 0) >= 250_000


def test_a_message_that_finds_no_room_is_written_when_the_socket_takes_more():
    """Else the connection sleeps for good: nobody else tells the owner that there is something to write."""
    woken = []
    sender = Sender(lambda: woken.append(1), lambda: None, lambda _: None)
    sender.taken(paused=True)
    assert not sender.message(Outgoing(1, 65_535), b"", b"message", end=True)
    sender.taken(paused=False)
    assert woken
    assert sender.take().endswith(b"message")


def fill(side, stream_id, size):
    """Send data and let the reader take it; return by how much the stream's window was opened."""
    side.connection.receive(b"".join(frame(DATA, 0, stream_id, bytes(16_384)) for _ in range(size // 16_384)))
    side.connection.streams[stream_id].consume(size)
    return updates(side.take(), stream_id)


PONG = frame(PING, ACK, 0, MEASURE)


def test_a_window_grows_where_a_round_trip_holds_most_of_it_up_to_its_bound(make_side):
    limits = Limits(max_frame=CLIENT_FRAME, stream_window=131_072, max_stream_window=3_000_000)
    server = make_side(limits=limits).start()
    server.connection.receive(OPEN)
    assert fill(server, 1, 65_536) == 65_536  # a measurement begins, and counts what came already
    assert fill(server, 1, 65_536) == 65_536
    server.connection.receive(PONG)
    grown = 16 * 131_072
    assert fill(server, 1, 65_536) == 65_536 + grown - 131_072
    server.connection.receive(PONG)  # nothing can be said yet: the peer has just heard of it
    assert fill(server, 1, 524_288) == 524_288
    assert fill(server, 1, 1_572_864) == 1_572_864
    server.connection.receive(PONG)
    assert fill(server, 1, 524_288) == 524_288 + 3_000_000 - grown
    assert server.connection.streams[1].window == 3_000_000


def test_a_window_stays_as_it_is_where_little_comes_in_a_round_trip(server):
    server.connection.receive(OPEN)
    for _ in range(5):
        assert fill(server, 1, 32_768) == 32_768
        server.connection.receive(PONG)
        server.now += 20


def test_measuring_gets_rarer_where_there_is_nothing_to_grow_for(server):
    server.connection.receive(OPEN)
    sent = 0
    for _ in range(600):  # a minute
        server.connection.receive(b"".join(frame(DATA, 0, 1, bytes(16_384)) for _ in range(4)))
        server.connection.streams[1].consume(65_536)
        if any(kind == PING and payload == MEASURE for kind, _, _, payload in server.take()):
            sent += 1
            server.connection.receive(PONG)
        server.now += 0.1
    assert 5 < sent < 20


def test_an_answer_to_no_question_is_ignored(server):
    server.connection.receive(OPEN + PONG * 3)
    assert fill(server, 1, 65_536) == 65_536


def test_the_windows_of_all_streams_grow_by_a_bounded_sum_that_ended_streams_give_back(make_side):
    server = make_side(limits=Limits(max_frame=CLIENT_FRAME, max_connection_window=200_000)).start()
    server.connection.receive(OPEN + frame(HEADERS, END_HEADERS, 3, BLOCK))
    first, second = (server.connection.streams[stream_id] for stream_id in (1, 3))
    fill(server, 1, 65_536)
    fill(server, 1, 131_072)
    server.connection.receive(PONG)
    fill(server, 1, 65_536)
    fill(server, 3, 65_536)
    assert first.window + second.window == 2 * 131_072 + 200_000
    server.connection.reset(first, 8)
    assert fill(server, 3, 131_072) > 131_072


def test_the_connections_window_grows_with_those_of_its_streams(make_side):
    limits = Limits(
        max_frame=CLIENT_FRAME, stream_window=131_072, connection_window=131_072, max_connection_window=300_000
    )
    server = make_side(limits=limits).start()
    server.connection.receive(OPEN)
    fill(server, 1, 65_536)
    fill(server, 1, 131_072)
    server.connection.receive(PONG)
    server.connection.receive(b"".join(frame(DATA, 0, 1, bytes(16_384)) for _ in range(6)))
    assert 131_072 < updates(server.take(), 0) <= 300_000


def test_the_pieces_of_a_large_frame_are_heard_as_they_come(server):
    server.connection.receive(OPEN)
    whole = frame(DATA, END_STREAM, 1, bytes(range(250)) * 200)
    for at in range(0, len(whole), 9_999):
        server.connection.receive(whole[at : at + 9_999])
    heard = [(payload, end) for _, what, payload, end in server.log if what == "data"]
    assert b"".join(payload for payload, _ in heard) == bytes(range(250)) * 200
    assert [end for _, end in heard] == [False] * (len(heard) - 1) + [True]
    assert len(heard) > 1
    server.connection.receive(frame(HEADERS, END_HEADERS, 3, BLOCK))
    assert 3 in server.connection.streams
