"""Peers that are rude, mistaken, slow or dead; everybody else goes on."""

import asyncio
import gzip
import logging
import socket
import struct
import time

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from ketch.client import Client
from ketch.errors import (
    Cancelled,
    ConfigurationError,
    DeadlineExceeded,
    Internal,
    NotFound,
    Unavailable,
    Unimplemented,
)
from ketch.grpc.tuning import Tuning
from ketch.http2 import frames
from ketch.http2.codes import ErrorCode
from ketch.http2.compression import Decoder, encode
from ketch.http2.frames import ACK, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PREFACE, RST_STREAM
from ketch.http2.limits import Limits
from ketch.registries.static import StaticRegistry
from ketch.registry import Instance
from ketch.rpc import Cardinality, Method, Stub
from ketch.transport import Route
from ketch.transports.grpc import GrpcTransport
from ketch.url import Url

PROTOBUF = "application/protobuf"
UPLOAD = Method("t", "Upload", StringValue, StringValue, Cardinality.CLIENT_STREAM)
UPLOAD_ONE = Method("t", "UploadOne", StringValue, StringValue)
HELLO = PREFACE + frames.settings([])


def request(stream_id, path="/t/Echo", *, end=False, **fields):
    pairs = [(":method", "POST"), (":scheme", "http"), (":path", path), ("content-type", "application/grpc")]
    pairs = dict(pairs) | {name.replace("_", "-"): value for name, value in fields.items()}
    return frames.headers(stream_id, encode(pairs.items()), 16_384, end=end)


def message(stream_id, body, *, flag=0, end=True):
    payload = bytes([flag]) + len(body).to_bytes(4) + body
    return frames.frame(DATA, END_STREAM if end else 0, stream_id, payload)


class Peer:
    """A socket that says whatever it likes."""

    def __init__(self, reader, writer):
        self.reader = reader
        self.writer = writer
        self.decoder = Decoder(65_536)

    async def frame(self):
        high, low, kind, flags, stream_id = frames.HEAD.unpack(await self.reader.readexactly(9))
        return kind, flags, stream_id, await self.reader.readexactly((high << 16) + low)

    async def until(self, kind, flags=0):
        while True:
            got = await self.frame()
            if got[0] == kind and got[1] & flags == flags:
                return got

    async def status(self):
        """Return the trailers of the next response."""
        _, _, _, block = await self.until(HEADERS, END_STREAM)
        return dict(self.decoder.decode(block).fields)


@pytest.fixture
async def echo():
    async def echo(request):
        return request.body

    return {"/t/Echo": Route(unary=echo)}


@pytest.fixture
async def server(echo):
    transport = GrpcTransport(Tuning(keepalive=0.2, keepalive_timeout=0.2))
    listener = await transport.listen("127.0.0.1:0", echo)
    yield listener
    await listener.stop(0)


@pytest.fixture
async def peer(server):
    host, port = server.address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    yield Peer(reader, writer)
    writer.close()


async def call(address, body=b"fine"):
    channel = GrpcTransport().connect(address)
    try:
        return await channel.unary("/t/Echo", body, content_type=PROTOBUF, timeout=10)
    finally:
        await channel.close()


async def test_http1_is_answered_in_http1_closed_and_logged_once(server, peer, caplog):
    with caplog.at_level(logging.WARNING):
        peer.writer.write(b"GET /secret?token=x HTTP/1.1\r\nhost: a\r\n\r\n")
        answer = await peer.reader.read()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"gRPC" in answer
    (record,) = caplog.records
    assert "HTTP/1" in record.getMessage()
    assert "secret" not in record.getMessage()
    assert await call(server.address) == b"fine"


@pytest.mark.parametrize(
    "first", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"SSH-2.0-OpenSSH_9\r\n", bytes(100)]
)
async def test_another_protocol_is_closed_and_logged_once(server, peer, caplog, first):
    with caplog.at_level(logging.WARNING):
        peer.writer.write(first)
        await peer.reader.read()
    assert len(caplog.records) == 1
    assert await call(server.address) == b"fine"


async def test_a_header_frame_that_is_too_large_ends_the_connection(server, peer):
    peer.writer.write(HELLO + frames.frame(HEADERS, END_HEADERS, 1, bytes(16_385)))
    _, _, _, payload = await peer.until(GOAWAY)
    assert frames.word(payload, 4) == ErrorCode.FRAME_SIZE_ERROR
    assert await call(server.address) == b"fine"


async def test_what_comes_on_a_stream_that_the_peer_has_reset_is_an_error(server, peer):
    peer.writer.write(HELLO + request(1) + frames.rst_stream(1, 8) + message(1, b"late"))
    _, _, stream_id, payload = await peer.until(RST_STREAM)
    assert (stream_id, frames.word(payload)) == (1, ErrorCode.STREAM_CLOSED)


async def test_a_request_that_isnt_grpc_is_told_so_in_words(peer):
    pairs = [(":method", "GET"), (":scheme", "http"), (":path", "/")]
    peer.writer.write(HELLO + frames.headers(1, encode(pairs), 16_384, end=True))
    _, _, _, payload = await peer.until(DATA, END_STREAM)
    assert payload == b"This port speaks gRPC.\n"


async def test_a_streams_first_reply_that_is_too_large_is_answered_with_headers_and_status():
    async def huge(_, stream):
        await stream.send(bytes(100))

    listener = await GrpcTransport(Tuning(max_send_size=99)).listen("127.0.0.1:0", {"/t/Huge": Route(stream=huge)})
    host, port = listener.address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    peer = Peer(reader, writer)
    writer.write(HELLO + request(1, "/t/Huge", end=True))
    _, _, _, block = await peer.until(HEADERS)
    fields = dict(peer.decoder.decode(block).fields)
    assert (fields[":status"], fields["grpc-status"]) == ("200", "8")
    writer.close()
    await listener.stop(0)


async def test_a_request_that_isnt_grpc_gets_415(peer):
    peer.writer.write(HELLO + request(1, content_type="application/json", end=True))
    _, _, _, block = await peer.until(HEADERS)
    assert (":status", "415") in peer.decoder.decode(block).fields


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (request(1, end=True), "12"),
        (request(1) + message(1, b"a", end=False) + message(1, b"b"), "12"),
        (request(1) + frames.frame(DATA, END_STREAM, 1, b"\0\0\0\0\x09half"), "13"),
        (request(1) + message(1, b"x", flag=2), "13"),
        (request(1) + message(1, b"not gzip", flag=1), "13"),
        (request(1, grpc_encoding="gzip") + message(1, b"not gzip", flag=1), "13"),
        (request(1, grpc_encoding="gzip") + message(1, gzip.compress(b"cut", mtime=0)[:-6], flag=1), "13"),
        (request(1, grpc_encoding="gzip") + message(1, gzip.compress(bytes(8_000_000), mtime=0), flag=1), "8"),
        (request(1) + frames.frame(DATA, 0, 1, b"\0\xff\xff\xff\xff"), "8"),
        (request(1, grpc_encoding="br") + message(1, b"x", flag=1), "12"),
        (request(1, grpc_timeout="soon") + message(1, b"x"), "3"),
        (request(1, x_large="y" * 20_000) + message(1, b"x"), "8"),
        (request(1, path="/t/Nothing") + message(1, b"x"), "12"),
    ],
)
async def test_a_request_that_is_wrong_gets_its_status_and_the_next_is_served(peer, data, code):
    peer.writer.write(HELLO + data)
    trailers = await peer.status()
    assert trailers["grpc-status"] == code
    peer.writer.write(request(3) + message(3, b"next"))
    assert (await peer.until(DATA))[2:] == (3, b"\0\0\0\0\x04next")
    assert (await peer.status())["grpc-status"] == "0"


async def test_a_broken_frame_gets_goaway_and_the_connection_is_closed(server, peer):
    peer.writer.write(HELLO + frames.frame(PING, 0, 1, bytes(8)))
    _, _, _, payload = await peer.until(GOAWAY)
    assert struct.unpack_from(">II", payload)[1] == 1
    assert await peer.reader.read() == b""
    assert await call(server.address) == b"fine"


async def test_a_peer_that_is_silent_is_pinged_and_then_dropped(peer):
    peer.writer.write(HELLO)
    _, _, _, payload = await peer.until(PING)
    peer.writer.write(frames.frame(PING, ACK, 0, payload))
    await peer.until(PING)
    assert await peer.reader.read() is not None  # and then the end


async def test_a_call_is_taken_that_comes_with_the_reset_of_the_one_before():
    """A client that is allowed n streams may give one up and begin another at once, whatever the handler does."""
    began = asyncio.Event()

    async def wait(request):
        began.set()
        await asyncio.Event().wait()

    async def echo(request):
        return request.body

    routes = {"/t/Wait": Route(unary=wait), "/t/Echo": Route(unary=echo)}
    listener = await GrpcTransport(Tuning(limits=Limits(max_streams=1))).listen("127.0.0.1:0", routes)
    host, port = listener.address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(HELLO + request(1, "/t/Wait") + message(1, b""))
    await began.wait()
    writer.write(frames.rst_stream(1, 8) + request(3) + message(3, b"x"))
    peer, kind, flags = Peer(reader, writer), None, 0
    while kind != RST_STREAM and not (kind == HEADERS and flags & END_STREAM):
        kind, flags, _, _ = await peer.frame()
    assert kind == HEADERS
    writer.close()
    await listener.stop(0)


async def test_a_peer_that_sends_a_frame_in_single_bytes_is_dropped(server, peer):
    """The one that keeps a connection busy without ever saying anything ("slowloris")."""
    slow = request(1, x_large="y" * 9000)
    peer.writer.write(HELLO + slow[:100])
    ending = asyncio.ensure_future(peer.until(GOAWAY))
    for byte in slow[100:]:
        peer.writer.write(bytes((byte,)))
        done, _ = await asyncio.wait([ending], timeout=0.05)
        if done:
            break
    _, _, _, payload = await ending
    assert struct.unpack_from(">II", payload)[1] == 11
    assert await call(server.address) == b"fine"


async def test_a_reset_frees_the_place_of_a_call_only_with_its_handler(peer, echo):
    """Rapid reset: however fast streams are opened and reset, no more than twice as many handlers as streams run."""
    running = most = 0

    async def busy(request):
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            await asyncio.Event().wait()
        finally:
            running -= 1

    listener = await GrpcTransport(Tuning(limits=Limits(max_streams=10))).listen(
        "127.0.0.1:0", {"/t/B": Route(unary=busy)}
    )
    host, port = listener.address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(HELLO)
    for stream_id in range(1, 401, 2):
        writer.write(request(stream_id, "/t/B") + message(stream_id, b"") + frames.rst_stream(stream_id, 8))
    writer.write(frames.frame(PING, 0, 0, b"are you?"))
    await Peer(reader, writer).until(PING, ACK)
    assert most <= 20
    writer.close()
    await listener.stop(0)


async def test_a_slow_reader_is_held_back_and_doesnt_hold_back_others(server, peer):
    sent = 0

    async def flood(request, stream):
        nonlocal sent
        while True:
            await stream.send(bytes(50_000))
            sent += 50_000

    async def echo(request):
        return request.body

    listener = await GrpcTransport().listen("127.0.0.1:0", {"/t/F": Route(stream=flood), "/t/Echo": Route(unary=echo)})
    host, port = listener.address.split(":")
    _, writer = await asyncio.open_connection(host, int(port), limit=1000)
    huge = frames.settings([(4, 2**31 - 1)]) + frames.window_update(0, 2**30)
    writer.write(PREFACE + huge + request(1, "/t/F", end=True))
    before = -1
    while sent != before or not sent:
        before = sent
        for _ in range(20):
            assert await call(listener.address) == b"fine"
    assert sent < 30_000_000
    writer.close()
    await listener.stop(0)


async def serve_bytes(answer):
    async def accept(reader, writer):
        writer.write(answer)
        await reader.read(1)
        writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    return server, "127.0.0.1:{1}".format(*server.sockets[0].getsockname())


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH\r\n", b"\x15\x03\x01\0\x02", b""]
)
async def test_calling_a_port_that_speaks_something_else_is_unavailable(answer):
    server, address = await serve_bytes(answer)
    async with server:
        channel = GrpcTransport(Tuning(connect_timeout=0.5)).connect(address)
        with pytest.raises(Unavailable, match=address):
            await channel.unary("/t/Echo", b"", content_type=PROTOBUF)
        await channel.close()


@pytest.mark.parametrize("address", ["127.0.0.1:1", "unix:/nowhere/at/all", "nonsense", "localhost:99999"])
async def test_calling_nobody_is_unavailable_and_names_the_address(address):
    channel = GrpcTransport().connect(address)
    with pytest.raises(Unavailable, match=address):
        await channel.unary("/t/Echo", b"", content_type=PROTOBUF, timeout=5)
    await channel.close()


async def test_a_server_that_answers_no_more_is_given_up():
    """The connection stands, the machine behind it doesn't answer: only a ping can tell."""

    async def accept(reader, writer):
        writer.write(frames.settings([]))
        await reader.read()
        writer.close()

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        address = "127.0.0.1:{1}".format(*server.sockets[0].getsockname())
        channel = GrpcTransport(Tuning(keepalive=0.1, keepalive_timeout=0.1)).connect(address)
        with pytest.raises(Unavailable, match="did not answer"):
            await channel.unary("/t/Echo", b"", content_type=PROTOBUF, timeout=10)
        await channel.close()


async def test_a_call_that_was_refused_unseen_is_made_again_on_another_connection():
    refused = 0

    async def accept(reader, writer):
        nonlocal refused
        peer = Peer(reader, writer)
        writer.write(frames.settings([]))
        await reader.readexactly(len(PREFACE))
        _, _, stream_id, _ = await peer.until(HEADERS)
        refused += 1
        writer.write(frames.rst_stream(stream_id, 7) + frames.goaway(0, 0, ""))
        server.close()
        await listening.wait()
        writer.close()

    listening = asyncio.Event()
    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    address = "127.0.0.1:{1}".format(*server.sockets[0].getsockname())
    channel = GrpcTransport().connect(address)
    calling = asyncio.create_task(channel.unary("/t/Echo", b"again", content_type=PROTOBUF, timeout=10))
    with pytest.raises(Unavailable, match="can't be reached"):  # it looked for another server, there was none
        await calling
    assert refused == 1
    listening.set()
    await channel.close()


async def test_a_reset_of_the_server_is_the_calls_status():
    async def accept(reader, writer):
        peer = Peer(reader, writer)
        writer.write(frames.settings([]))
        await reader.readexactly(len(PREFACE))
        _, _, stream_id, _ = await peer.until(HEADERS)
        writer.write(frames.frame(RST_STREAM, 0, stream_id, (8).to_bytes(4)))
        await reader.read()
        writer.close()

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        channel = GrpcTransport().connect("127.0.0.1:{1}".format(*server.sockets[0].getsockname()))
        with pytest.raises(Cancelled):
            await channel.unary("/t/Echo", b"", content_type=PROTOBUF)
        await channel.close()


def response(*headers):
    """Return header blocks and messages of a response on stream 1."""
    out = b""
    for number, said in enumerate(headers):
        last = END_STREAM if number == len(headers) - 1 else 0
        if isinstance(said, dict):
            out += frames.frame(HEADERS, END_HEADERS | last, 1, encode(said.items()))
        else:
            out += message(1, said, end=bool(last))
    return out


STRING = StringValue(value="a").SerializeToString()
START = {":status": "200", "content-type": "application/grpc"}


@pytest.mark.parametrize(
    ("said", "replies", "error"),
    [
        ((START, b"one"), [b"one"], Internal),
        (({**START, "grpc-status": "9"}, b"one"), [b"one"], Internal),
        (({**START, "grpc-status": "8"}, {"grpc-status": "5"}), [], NotFound),
        ((START, b"one", {"grpc-status": "5"}), [b"one"], NotFound),
    ],
    ids=["no status", "status too early", "two statuses", "status"],
)
async def test_what_a_server_sent_before_it_failed_is_received_and_its_last_status_counts(said, replies, error):
    async def accept(reader, writer):
        peer = Peer(reader, writer)
        writer.write(frames.settings([]))
        await reader.readexactly(len(PREFACE))
        await peer.until(HEADERS)
        writer.write(response(*said))
        await reader.read()
        writer.close()

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        channel = GrpcTransport().connect("127.0.0.1:{1}".format(*server.sockets[0].getsockname()))
        stream = await channel.stream("/t/Count", content_type=PROTOBUF)
        for reply in replies:
            assert await stream.receive() == reply
        with pytest.raises(error):
            await stream.receive()
        await channel.close()


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ((START, {"grpc-status": "0"}), Unimplemented),
        ((START, STRING, STRING, {"grpc-status": "0"}), Unimplemented),
        ((START, STRING, {"grpc-status": "5"}), NotFound),
        (({**START, "grpc-status": "8"}, {"grpc-status": "5"}), NotFound),
    ],
    ids=["no reply", "two replies", "an error after the reply", "two statuses"],
)
async def test_a_call_has_one_reply_and_the_status_after_it_counts(said, error):
    async def accept(reader, writer):
        peer = Peer(reader, writer)
        writer.write(frames.settings([]))
        await reader.readexactly(len(PREFACE))
        await peer.until(HEADERS)
        writer.write(response(*said))
        await reader.read()
        writer.close()

    async def requests():
        yield StringValue(value="a")

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        address = "127.0.0.1:{1}".format(*server.sockets[0].getsockname())
        registry = StaticRegistry([Instance("t", "peer", address)])
        async with Client.from_env(environ={}, registry=registry, transport="grpc", broker="memory") as client:
            with pytest.raises(error):
                await Stub(client, "t")._client_stream(UPLOAD, requests(), None, None)
        async with Client.from_env(environ={}, registry=registry, transport="grpc", broker="memory") as client:
            with pytest.raises(error):
                await Stub(client, "t")._unary(UPLOAD_ONE, StringValue(value="a"), None, None)


async def test_a_socket_that_a_dead_process_left_is_taken_over(tmp_path, echo):
    path = f"{tmp_path}/s"
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(path)
    dead.close()
    listener = await GrpcTransport().listen(f"unix:{path}", echo)
    assert await call(listener.address) == b"fine"
    await listener.stop(0)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("option", ["keepalive=soon", "max_message_size=0", "connect_timeout=-1", "keepalve=3"])
def test_an_option_that_is_wrong_is_refused(option):
    with pytest.raises(ConfigurationError):
        GrpcTransport.from_url(Url.parse(f"grpc://?{option}"))


@pytest.mark.parametrize("streams", [False, True])
async def test_a_call_that_the_server_resets_as_its_deadline_passes_has_exceeded_it(streams):
    """grpc-go resets with CANCEL then; the reset may be heard before our own timer fires."""

    async def accept(reader, writer):
        peer = Peer(reader, writer)
        writer.write(frames.settings([]))
        await reader.readexactly(len(PREFACE))
        await peer.until(HEADERS)
        writer.write(frames.frame(RST_STREAM, 0, 1, (8).to_bytes(4)))
        time.sleep(0.2)  # noqa: ASYNC251 - both are to be due when the loop looks again
        await reader.read()
        writer.close()

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        channel = GrpcTransport().connect("127.0.0.1:{1}".format(*server.sockets[0].getsockname()))
        if streams:
            answer = (await channel.stream("/t/Echo", content_type=PROTOBUF, timeout=0.1)).receive()
        else:
            answer = channel.unary("/t/Echo", b"", content_type=PROTOBUF, timeout=0.1)
        with pytest.raises(DeadlineExceeded):
            await answer
        await channel.close()
