"""TLS with stock grpcio, in both directions; who gets in, who doesn't, and what both are told."""

import asyncio
import contextlib
import datetime as dt
import logging
import random
import socket
import ssl
from pathlib import Path

import grpc
import grpc.aio
import pytest

from ketch.errors import StatusError, Unavailable
from ketch.grpc.tuning import Tuning
from ketch.http2 import frames
from ketch.http2.compression import encode
from ketch.http2.frames import END_HEADERS, END_STREAM, GOAWAY, HEADERS, PREFACE
from ketch.tls import ClientTls, ServerTls, Tls
from ketch.transport import Route
from ketch.transports.grpc import GrpcTransport

PROTOBUF = "application/protobuf"
LARGE = bytes(range(256)) * 8192  # 2 MiB, many times a TLS record and the windows
PAST = dt.datetime(2001, 1, 1, tzinfo=dt.UTC)
FOREVER = {"not_before": PAST - dt.timedelta(days=1)}


class Served:
    """Handlers, and what they saw."""

    def __init__(self):
        self.requests = []
        self.sent = 0
        self.routes = {
            "/t/Echo": Route(unary=self.echo),
            "/t/Chat": Route(stream=self.chat),
            "/t/Flood": Route(stream=self.flood),
        }

    async def echo(self, request):
        self.requests.append(request)
        return request.body

    async def chat(self, _, stream):
        while (body := await stream.receive()) is not None:
            await stream.send(body)

    async def flood(self, _, stream):
        while True:
            await stream.send(bytes(50_000))
            self.sent += 1


@pytest.fixture
async def served():
    return Served()


@pytest.fixture
def pair(authority):
    return authority.issue("server")


@pytest.fixture
async def listen(served):
    """Listen with the given files."""
    async with contextlib.AsyncExitStack() as stack:

        async def listen(*files, address="127.0.0.1:0", **tuning):
            tls = Tls(ServerTls(*files)) if files else None
            listener = await GrpcTransport(Tuning(**tuning), tls).listen(address, served.routes)
            stack.push_async_callback(listener.stop, 0)
            return listener

        yield listen


@pytest.fixture
async def connect():
    """Return our channel to an address, with the given files."""
    async with contextlib.AsyncExitStack() as stack:

        def connect(address, *files, **tls):
            secured = Tls(client=ClientTls(*files, **tls)) if files else None
            channel = GrpcTransport(Tuning(connect_timeout=3), secured).connect(address)
            stack.push_async_callback(channel.close)
            return channel

        yield connect


async def echo(channel, body=b"hi"):
    return await channel.unary("/t/Echo", body, content_type=PROTOBUF, timeout=10)


def read(path):
    return Path(path).read_bytes()


def stock_channel(address, root, pair=None, **options):
    key, cert = (read(pair[1]), read(pair[0])) if pair else (None, None)
    credentials = grpc.ssl_channel_credentials(read(root), key, cert)
    return grpc.aio.secure_channel(address, credentials, options=list(options.items()))


@contextlib.asynccontextmanager
async def stock_server(pair, client_ca=None):
    async def echo(request, context):
        return request

    async def chat(requests, context):
        async for request in requests:
            yield request

    handlers = {
        "Echo": grpc.unary_unary_rpc_method_handler(echo),
        "Chat": grpc.stream_stream_rpc_method_handler(chat),
    }
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t", handlers),))
    credentials = grpc.ssl_server_credentials(
        [(read(pair[1]), read(pair[0]))], read(client_ca) if client_ca else None, client_ca is not None
    )
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


async def messages(requests):
    for request in requests:
        yield request


# Everybody who should gets in


@pytest.mark.parametrize("mutual", [False, True])
async def test_a_stock_client_calls_us(listen, authority, pair, served, mutual):
    listener = await listen(*pair, *([authority.root] if mutual else []))
    own = authority.issue("client") if mutual else None
    async with stock_channel(listener.address, authority.root, own) as channel:
        assert await channel.unary_unary("/t/Echo")(b"hi", timeout=10) == b"hi"
        assert await channel.unary_unary("/t/Echo")(LARGE, timeout=10) == LARGE
        chat = channel.stream_stream("/t/Chat")(messages([b"1", LARGE, b"3"]), timeout=10)
        assert [reply async for reply in chat] == [b"1", LARGE, b"3"]


@pytest.mark.parametrize("mutual", [False, True])
async def test_we_call_a_stock_server(connect, authority, pair, mutual):
    async with stock_server(pair, authority.root if mutual else None) as address:
        channel = connect(address, authority.root, *(authority.issue("client") if mutual else []))
        assert await echo(channel) == b"hi"
        assert await echo(channel, LARGE) == LARGE
        stream = await channel.stream("/t/Chat", content_type=PROTOBUF, timeout=10)
        for body in (b"1", LARGE):
            await stream.send(body)
            assert await stream.receive() == body
        await stream.end()
        assert await stream.receive() is None


async def test_the_name_to_verify_can_be_given_where_instances_are_known_by_their_address(listen, connect, authority):
    listener = await listen(*authority.issue("named", "users.example"))
    assert await echo(connect(listener.address, authority.root, server_name="users.example")) == b"hi"
    with pytest.raises(Unavailable, match=r"not valid for '127\.0\.0\.1'.*client_tls_server_name"):
        await echo(connect(listener.address, authority.root))


async def test_unix_sockets_encrypt_as_well(listen, connect, authority, pair, tmp_path):
    listener = await listen(*pair, authority.root, address=f"unix:{tmp_path}/socket")
    own = authority.issue("client")
    assert await echo(connect(listener.address, authority.root, *own), LARGE) == LARGE
    with pytest.raises(Unavailable, match="if it speaks TLS, set client_tls_ca"):
        await echo(connect(listener.address))
    async with stock_channel(
        listener.address, authority.root, own, **{"grpc.ssl_target_name_override": "localhost"}
    ) as channel:
        assert await channel.unary_unary("/t/Echo")(b"hi", timeout=10) == b"hi"


async def test_the_scheme_says_https_and_the_authority_is_the_verified_name(authority, connect):
    """A server that knows nothing but TLS and the bytes of HTTP/2."""
    seen = asyncio.get_running_loop().create_future()

    async def serve(reader, writer):
        await reader.readexactly(len(PREFACE))
        writer.write(frames.settings([]))
        while True:
            high, low, kind, *_ = frames.HEAD.unpack(await reader.readexactly(9))
            block = await reader.readexactly((high << 16) + low)
            if kind == HEADERS:
                seen.set_result(block)
                break
        writer.close()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("named", "users.example"))
    context.set_alpn_protocols(["h2"])
    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
        address = "127.0.0.1:{1}".format(*server.sockets[0].getsockname())
        with pytest.raises(StatusError):
            await echo(connect(address, authority.root, server_name="users.example"))
    block = await seen
    assert encode([(":scheme", "https")]) in block
    assert encode([(":authority", "users.example")]) in block


async def test_large_messages_pass_both_ways_at_once_and_small_ones_by_the_hundred(authority, pair, served):
    tls = Tls(ServerTls(*pair, authority.root), ClientTls(authority.root, *pair))
    async with GrpcTransport(tls=tls) as transport:
        listener = await transport.listen("127.0.0.1:0", served.routes)
        channel = transport.connect(listener.address)
        stream = await channel.stream("/t/Chat", content_type=PROTOBUF, timeout=30)

        async def send():
            for _ in range(20):
                await stream.send(LARGE)
            await stream.end()

        sending = asyncio.create_task(send())
        for _ in range(20):
            assert await stream.receive() == LARGE
        assert await stream.receive() is None
        await sending
        small = [b"%d" % number for number in range(300)]
        assert await asyncio.gather(*(echo(channel, body) for body in small)) == small
        await channel.close()
        await listener.stop(1)


async def test_a_client_that_does_not_read_holds_the_handler_back(listen, authority, pair, served):
    """Its windows are wide open, so only the socket can."""
    listener = await listen(*pair)
    reader, writer = await asyncio.open_connection(*listener.address.split(":"), ssl=trusting(authority), limit=1)
    widest = frames.settings([(4, 2**31 - 1)]) + frames.window_update(0, 2**31 - 1 - 65_535)
    pairs = [(":method", "POST"), (":scheme", "https"), (":path", "/t/Flood"), ("content-type", "application/grpc")]
    head = frames.frame(HEADERS, END_HEADERS, 1, encode(pairs))
    writer.write(PREFACE + widest + head + frames.frame(0, END_STREAM, 1, bytes(5)))
    reader._transport.pause_reading()
    other = GrpcTransport(tls=Tls(client=ClientTls(authority.root))).connect(listener.address)
    before = -1
    while before != served.sent or not served.sent:
        before = served.sent
        for _ in range(100):
            await echo(other)
    assert served.sent < 400  # 20 MB: what the kernel's buffers take, not what 2 GiB of window would
    await other.close()
    writer.transport.abort()


# Who may not come in, and what both are told


async def knock(listener, context):
    """Shake hands, and hear what comes after: in TLS 1.3 a client's certificate is judged when it believes to be in."""
    reader, writer = await asyncio.open_connection(*listener.address.split(":"), ssl=context)
    try:
        return await reader.read()
    finally:
        writer.close()


def trusting(authority, *own, alpn=("h2",)):
    """Return a foreign client's context."""
    context = ssl.create_default_context(cafile=authority.root)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if own:
        context.load_cert_chain(*own)
    return context


async def test_a_server_that_nobody_vouches_for_is_not_called(listen, connect, authority, stranger, pair, caplog):
    listener = await listen(*pair)
    with pytest.raises(Unavailable, match=r"certificate is not accepted: .*; is its root in client_tls_ca\?"):
        await echo(connect(listener.address, stranger.root))
    assert "it does not trust who signed our certificate" in await said(caplog)


async def test_a_server_whose_certificate_has_expired_is_not_called(connect, authority):
    """A stock server: ours would not start with it."""
    async with stock_server(authority.issue("old", "127.0.0.1", not_after=PAST, **FOREVER)) as address:
        with pytest.raises(Unavailable, match="TLS: its certificate is not accepted: certificate has expired"):
            await echo(connect(address, authority.root))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_client_without_a_certificate_is_turned_away_where_one_is_demanded(
    listen, authority, pair, caplog, version
):
    listener = await listen(*pair, authority.root)
    context = trusting(authority)
    context.maximum_version = version
    with pytest.raises(ssl.SSLError, match=r"(?i)certificate.required|handshake.failure"):
        await knock(listener, context)
    assert "presents no certificate, which server_tls_client_ca demands" in await said(caplog)


async def test_our_client_is_told_that_it_needs_a_certificate(listen, connect, authority, pair, caplog):
    listener = await listen(*pair, authority.root)
    with pytest.raises(Unavailable, match="it demands a certificate of ours: set client_tls_cert"):
        await echo(connect(listener.address, authority.root))
    async with stock_server(pair, authority.root) as address:
        with pytest.raises(Unavailable, match=r"closed the connection before it spoke HTTP/2.*set client_tls_cert"):
            await echo(connect(address, authority.root))


async def test_a_client_that_a_stranger_vouches_for_is_turned_away(listen, connect, authority, stranger, pair, caplog):
    listener = await listen(*pair, authority.root)
    with pytest.raises(Unavailable, match="TLS: it does not trust who signed our certificate"):
        await echo(connect(listener.address, authority.root, *stranger.issue("client")))
    assert "its certificate is not accepted: unable to get local issuer" in await said(caplog)


async def test_a_client_whose_certificate_has_expired_is_turned_away(listen, authority, pair, caplog):
    listener = await listen(*pair, authority.root)
    context = trusting(authority, *authority.issue("old", "client", not_after=PAST, **FOREVER))
    with pytest.raises(ssl.SSLError, match=r"(?i)certificate.expired"):
        await knock(listener, context)
    assert "its certificate is not accepted: certificate has expired" in await said(caplog)


async def test_plain_text_is_refused_in_the_words_of_who_speaks_it(listen, connect, pair, served, caplog):
    listener = await listen(*pair)
    with pytest.raises(Unavailable, match="if it speaks TLS, set client_tls_ca"):
        await echo(connect(listener.address))
    async with grpc.aio.insecure_channel(listener.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/t/Echo")(b"hi", timeout=2)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "failed to connect" in caught.value.details()
    reader, writer = await asyncio.open_connection(*listener.address.split(":"))
    writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    assert b"gRPC over TLS only" in await reader.read()
    writer.close()
    reader, writer = await asyncio.open_connection(*listener.address.split(":"))
    writer.write(b"\0\0\0\0")
    assert await reader.read() == b""
    writer.close()
    assert served.requests == []
    assert "127.0.0.1" in await said(caplog)


async def test_who_is_turned_away_in_mid_sentence_still_gets_to_read_why(listen, pair):
    """Closing with bytes unread would reset the connection, and take the answer with it."""
    listener = await listen(*pair)
    with socket.create_connection(listener.address.split(":")) as raw:

        def talk():
            raw.sendall(b"POST / HTTP/1.1\r\n\r\n" + bytes(5_000_000))
            return b"".join(iter(lambda: raw.recv(65_536), b""))

        sending = asyncio.to_thread(talk)
        assert b"gRPC over TLS only" in await sending


async def test_who_tries_again_and_again_does_not_fill_the_log(listen, connect, pair, caplog):
    listener = await listen(*pair)
    channel = connect(listener.address)
    for _ in range(20):
        with pytest.raises(Unavailable):
            await echo(channel)
    assert len([record for record in caplog.records if "plain text" in record.message]) == 1


async def test_who_only_looks_whether_the_port_is_open_is_not_worth_a_line(listen, pair, caplog):
    """Load balancers and Kubernetes' probes do."""
    listener = await listen(*pair)
    for _ in range(3):
        reader, writer = await asyncio.open_connection(*listener.address.split(":"))
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
    assert not caplog.records


async def test_a_tls_client_on_a_plain_port_is_told_and_so_is_the_log(listen, connect, authority, caplog):
    listener = await listen()
    with pytest.raises(Unavailable, match="TLS: it closed the connection during the TLS handshake; does it speak TLS"):
        await echo(connect(listener.address, authority.root))
    assert "it speaks TLS, this port plain text" in await said(caplog)


async def test_a_tls_client_on_a_stock_servers_plain_port_is_told(connect, authority):
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    with pytest.raises(Unavailable, match="TLS: it does not speak TLS"):
        await echo(connect(f"127.0.0.1:{port}", authority.root))
    await server.stop(0)


async def test_a_plain_client_on_a_stock_servers_tls_port_is_told_what_to_set(connect, pair):
    async with stock_server(pair) as address:
        with pytest.raises(Unavailable, match="if it speaks TLS, set client_tls_ca"):
            await echo(connect(address))


@pytest.mark.parametrize("alpn", [(), ("http/1.1",)])
async def test_a_client_that_does_not_negotiate_h2_is_told_in_http1(listen, authority, pair, caplog, alpn):
    listener = await listen(*pair)
    context = trusting(authority, alpn=alpn)
    reader, writer = await asyncio.open_connection(*listener.address.split(":"), ssl=context)
    assert b"h2 by ALPN" in await reader.read()
    writer.close()
    assert "did not agree on h2 by ALPN" in await said(caplog)


async def test_a_server_that_does_not_negotiate_h2_is_not_called(connect, authority, pair):
    async def serve(reader, writer):
        await reader.read()
        writer.close()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pair)
    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
        address = "127.0.0.1:{1}".format(*server.sockets[0].getsockname())
        with pytest.raises(Unavailable, match="TLS: it did not agree on h2 by ALPN"):
            await echo(connect(address, authority.root))


@pytest.mark.parametrize("ciphers", ["ECDHE-ECDSA-AES128-SHA256", "ECDHE-ECDSA-AES256-SHA", "AES128-GCM-SHA256"])
async def test_what_http2_forbids_is_not_negotiated(listen, authority, pair, caplog, ciphers):
    listener = await listen(*pair)
    context = trusting(authority)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(ciphers)
    with pytest.raises(ssl.SSLError):
        await asyncio.open_connection(*listener.address.split(":"), ssl=context)
    assert "no cipher that HTTP/2 allows" in await said(caplog)


async def test_tls_older_than_1_2_is_refused(listen, pair, caplog):
    """The ClientHello is written out: OpenSSL here makes none of TLS 1.1 any more."""
    listener = await listen(*pair)
    reader, writer = await asyncio.open_connection(*listener.address.split(":"))
    body = b"\x03\x02" + bytes(32) + b"\0" + b"\0\x04\xc0\x09\xc0\x13" + b"\x01\0" + b"\0\0"
    hello = b"\x01" + len(body).to_bytes(3) + body
    writer.write(b"\x16\x03\x01" + len(hello).to_bytes(2) + hello)
    assert await reader.readexactly(7) == b"\x15\x03\x02\0\x02\x02\x46"  # fatal alert, protocol_version
    writer.close()
    assert "no version of TLS from 1.2 on" in await said(caplog)


async def said(caplog):
    """Return the log's warnings once there is one: the other side may be heard of before ours."""
    await until(lambda: any(record.levelno >= logging.WARNING for record in caplog.records))
    return " ".join(record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING)


async def until(true):
    """Wait for what the other side does; the test's time limit bounds it."""
    while not true():  # noqa: ASYNC110 - a log and a set have no event
        await asyncio.sleep(0.01)


# The handshake is bounded


HALF_A_HELLO = b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(40)


@pytest.mark.parametrize("sent", [b"", HALF_A_HELLO], ids=["nothing", "half a hello"])
async def test_a_peer_that_does_not_finish_its_handshake_is_dropped(listen, pair, caplog, sent):
    listener = await listen(*pair, handshake_timeout=0.2)
    reader, writer = await asyncio.open_connection(*listener.address.split(":"))
    writer.write(sent)
    with contextlib.suppress(ConnectionResetError):
        assert await reader.read() == b""
    writer.close()
    assert "no TLS handshake within 0.2 s" in await said(caplog)
    await until(lambda: not listener._guard.shaking)


async def test_a_server_that_never_answers_the_handshake_is_given_up(connect, authority):
    async def serve(reader, writer):
        await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        address = "127.0.0.1:{1}".format(*server.sockets[0].getsockname())
        channel = GrpcTransport(Tuning(connect_timeout=0.2), Tls(client=ClientTls(authority.root))).connect(address)
        with pytest.raises(Unavailable, match=r"no answer in HTTP/2, over TLS within 0\.2 s"):
            await echo(channel)
        await channel.close()


async def test_stopping_does_not_wait_for_those_who_only_knocked(listen, pair):
    listener = await listen(*pair, handshake_timeout=1000)
    reader, writer = await asyncio.open_connection(*listener.address.split(":"))
    writer.write(HALF_A_HELLO)
    other, knocking = await asyncio.open_connection(*listener.address.split(":"))
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await listener.stop(30)
        for end in (reader, other):
            with contextlib.suppress(ConnectionResetError):
                await end.read()
    writer.close()
    knocking.close()


async def test_garbage_in_place_of_a_handshake_or_after_it_harms_nobody_else(listen, connect, authority, pair):
    listener = await listen(*pair)
    good = connect(listener.address, authority.root)
    assert await echo(good) == b"hi"
    for garbage in (b"\x16" + bytes(5), b"\x16\x03\x01\xff\xff" + bytes(70_000), b"\x16\x03\x03\0\0" * 1000):
        with socket.create_connection(listener.address.split(":")) as raw:
            raw.sendall(garbage)
            assert await echo(good) == b"hi"
    with socket.create_connection(listener.address.split(":")) as raw:

        def shake_and_spoil():
            with trusting(authority).wrap_socket(raw, server_hostname="127.0.0.1", suppress_ragged_eofs=True) as secure:
                secure.sendall(PREFACE)
                plain = socket.socket(fileno=socket.dup(secure.fileno()))
                plain.sendall(b"\x17\x03\x03\0\x20" + bytes(32))
                with contextlib.suppress(OSError):
                    while plain.recv(65_536):
                        pass
                plain.close()

        await asyncio.to_thread(shake_and_spoil)
    assert await echo(good) == b"hi"


@pytest.mark.parametrize("seed", range(3))
async def test_a_handshake_that_is_bent_in_any_place_ends_and_leaves_nothing(listen, connect, authority, pair, seed):
    listener = await listen(*pair)
    good = connect(listener.address, authority.root)
    dice = random.Random(seed)
    for _ in range(60):
        outgoing = ssl.MemoryBIO()
        hello = trusting(authority).wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="127.0.0.1")
        with pytest.raises(ssl.SSLWantReadError):
            hello.do_handshake()
        bent = bytearray(outgoing.read())
        for _ in range(dice.randint(1, 4)):
            bent[dice.randrange(len(bent))] = dice.randrange(256)
        reader, writer = await asyncio.open_connection(*listener.address.split(":"))
        writer.write(bent[: dice.randint(1, len(bent))])
        writer.write_eof()
        with contextlib.suppress(ConnectionResetError):
            await reader.read()
        writer.close()
    assert await echo(good) == b"hi"
    await until(lambda: not listener._guard.shaking)
    assert len(listener._wires) == 1


async def test_a_goaway_of_another_kind_is_no_reason_to_spin(connect):
    """A server that greets and leaves with an error fails the call at once."""

    async def serve(reader, writer):
        writer.write(frames.settings([]) + frames.frame(GOAWAY, 0, 0, bytes(4) + (11).to_bytes(4) + b"busy"))
        await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        address = "127.0.0.1:{1}".format(*server.sockets[0].getsockname())
        with pytest.raises(Unavailable, match="refuses us: ENHANCE_YOUR_CALM: busy"):
            await echo(connect(address))
