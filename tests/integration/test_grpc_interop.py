"""Stock grpcio calls our listener, and our channel calls a stock grpcio server."""

import asyncio
import contextlib

import grpc
import grpc.aio
import pytest
from google.protobuf import any_pb2, wrappers_pb2
from google.rpc import status_pb2
from grpc_status import rpc_status

from ketch.errors import (
    Cancelled,
    DeadlineExceeded,
    NotFound,
    ResourceExhausted,
    StatusError,
    Unavailable,
    Unimplemented,
)
from ketch.transport import Route
from ketch.transports.grpc import GrpcTransport

PROTOBUF = "application/protobuf"
LARGE = bytes(range(256)) * 8192  # 2 MiB, many times the window


def detail() -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(wrappers_pb2.StringValue(value="why"))
    return packed


# Our listener, stock clients


class Handlers:
    def __init__(self):
        self.cancelled = asyncio.Event()
        self.started = asyncio.Event()
        self.requests = []

    def routes(self):
        return {
            "/t/Echo": Route(unary=self.echo),
            "/t/Fail": Route(unary=self.fail),
            "/t/Hang": Route(unary=self.hang),
            "/t/Count": Route(stream=self.count),
            "/t/Join": Route(stream=self.join),
            "/t/Chat": Route(stream=self.chat),
            "/t/Flood": Route(stream=self.flood),
        }

    async def echo(self, request):
        self.requests.append(request)
        request.trailers.update({"x-trailer": "t", "x-raw-bin": b"\x00\x01\xff"})
        return request.body

    async def fail(self, request):
        raise NotFound("nö\n100%", details=[detail().SerializeToString()], metadata={"x-hint": "h"})

    async def hang(self, request):
        self.started.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()

    async def count(self, request, stream):
        many = int(await stream.receive())
        for number in range(many):
            await stream.send(b"%d" % number)

    async def join(self, request, stream):
        parts = []
        while (body := await stream.receive()) is not None:
            parts.append(body)
        await stream.send(b"".join(parts))

    async def chat(self, request, stream):
        while (body := await stream.receive()) is not None:
            await stream.send(body.upper())

    async def flood(self, request, stream):
        self.started.set()
        try:
            while True:
                await stream.send(bytes(100_000))
        finally:
            self.cancelled.set()


@pytest.fixture
async def handlers():
    return Handlers()


@pytest.fixture(params=["tcp", "unix"])
async def target(request, handlers, tmp_path):
    async with GrpcTransport() as transport:
        listener = await transport.listen(
            "127.0.0.1:0" if request.param == "tcp" else f"unix:{tmp_path}/s", handlers.routes()
        )
        yield listener.address
        await listener.stop(0)


@pytest.fixture
async def stock(target):
    async with grpc.aio.insecure_channel(target) as channel:
        yield channel


async def test_a_stock_client_makes_a_unary_call_with_metadata_both_ways(stock, handlers):
    call = stock.unary_unary("/t/Echo")(b"hi", metadata=(("x-a", "1"), ("x-raw-bin", b"\x00\x01")), timeout=10)
    assert await call == b"hi"
    assert dict(await call.trailing_metadata()) == {"x-trailer": "t", "x-raw-bin": b"\x00\x01\xff"}
    (request,) = handlers.requests
    assert dict(request.metadata) == {"x-a": "1", "x-raw-bin": "AAE"}
    assert request.content_type == PROTOBUF
    assert request.deadline is not None


async def test_a_stock_client_makes_many_calls(stock):
    echo = stock.unary_unary("/t/Echo")
    bodies = [b"%d" % number for number in range(500)]
    assert await asyncio.gather(*(echo(body) for body in bodies)) == bodies


async def test_a_stock_client_sends_and_gets_large_messages(stock):
    assert await stock.unary_unary("/t/Echo")(LARGE) == LARGE


async def test_a_stock_client_gets_our_statuses_with_details(stock):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stock.unary_unary("/t/Fail")(b"")
    error = caught.value
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert error.details() == "nö\n100%"
    found = dict(error.trailing_metadata())
    assert found["x-hint"] == "h"
    status = status_pb2.Status.FromString(found["grpc-status-details-bin"])
    assert (status.code, status.message, list(status.details)) == (5, "nö\n100%", [detail()])


@pytest.mark.parametrize("requests", [[], [b"one", b"two"]])
async def test_a_unary_call_with_any_other_number_of_requests_than_one_is_unimplemented(stock, requests):
    """GRPC's statuscodes.md calls it a cardinality violation."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stock.stream_unary("/t/Echo")(requests)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_stock_client_learns_that_a_method_isnt_served(stock):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stock.unary_unary("/t/Nothing")(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stock.unary_unary("/t/Nothing")(LARGE)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_stock_client_streams_all_three_ways(stock):
    assert [int(reply) async for reply in stock.unary_stream("/t/Count")(b"1000")] == list(range(1000))
    parts = [b"%d" % number for number in range(1000)]
    assert await stock.stream_unary("/t/Join")(iter(parts)) == b"".join(parts)
    chat = stock.stream_stream("/t/Chat")()
    for word in (b"a", LARGE, b""):
        await chat.write(word)
        assert await chat.read() == word.upper()
    await chat.done_writing()
    assert await chat.read() is grpc.aio.EOF


async def test_a_stock_clients_deadline_cancels_our_handler(stock, handlers):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stock.unary_unary("/t/Hang")(b"", timeout=0.2)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await handlers.cancelled.wait()


async def test_a_stock_client_that_cancels_cancels_our_handler(stock, handlers):
    call = stock.unary_unary("/t/Hang")(b"")
    waiting = asyncio.ensure_future(call.code())
    await handlers.started.wait()
    call.cancel()
    assert await waiting is grpc.StatusCode.CANCELLED
    await handlers.cancelled.wait()


async def test_a_stock_client_that_goes_away_cancels_our_handler(target, handlers):
    async with grpc.aio.insecure_channel(target) as channel:
        stream = channel.unary_stream("/t/Flood")(b"")
        assert len(await stream.read()) == 100_000
    await handlers.cancelled.wait()


async def test_a_stock_client_sends_gzip(target, handlers):
    async with grpc.aio.insecure_channel(target, compression=grpc.Compression.Gzip) as channel:
        assert await channel.unary_unary("/t/Echo")(LARGE) == LARGE


async def test_a_gzip_bomb_is_refused(target, handlers):
    async with grpc.aio.insecure_channel(
        target, compression=grpc.Compression.Gzip, options=[("grpc.max_send_message_length", -1)]
    ) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/t/Echo")(bytes(50_000_000))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert handlers.requests == []


@pytest.mark.parametrize("compression", [grpc.Compression.Deflate, grpc.Compression.Gzip])
async def test_a_stock_client_may_compress(target, compression):
    async with grpc.aio.insecure_channel(target, compression=compression) as channel:
        assert await channel.unary_unary("/t/Echo")(LARGE) == LARGE


async def test_a_stock_client_whose_message_is_too_large_is_told(target):
    async with grpc.aio.insecure_channel(target, options=[("grpc.max_send_message_length", -1)]) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/t/Echo")(bytes(5_000_000))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await channel.unary_unary("/t/Echo")(b"next") == b"next"


async def test_a_stock_client_moves_on_when_we_drain(handlers, unused_tcp_port):
    """Two listeners on one port, one after the other; the client's channel never fails a call."""
    async with GrpcTransport() as transport:
        address = f"127.0.0.1:{unused_tcp_port}"
        listener = await transport.listen(address, handlers.routes())
        async with grpc.aio.insecure_channel(address) as channel:
            echo = channel.unary_unary("/t/Echo")
            answered = 0
            many = asyncio.Event()

            async def pour():
                nonlocal answered
                for _ in range(150):
                    assert await echo(b"x", wait_for_ready=True, timeout=20) == b"x"
                    answered += 1
                    if answered > 100:
                        many.set()

            pouring = [asyncio.create_task(pour()) for _ in range(4)]
            await many.wait()
            await listener.stop(5)
            listener = await transport.listen(address, handlers.routes())
            await asyncio.gather(*pouring)
        await listener.stop(0)


async def test_a_synchronous_stock_client_works_too(target):
    def call():
        with grpc.insecure_channel(target) as channel:
            one = channel.unary_unary("/t/Echo")(b"hi", timeout=10)
            many = list(channel.unary_stream("/t/Count")(b"10", timeout=10))
            error = None
            try:
                channel.unary_unary("/t/Fail")(b"", timeout=10)
            except grpc.RpcError as caught:
                error = rpc_status.from_call(caught)
            return one, many, error

    one, many, error = await asyncio.to_thread(call)
    assert one == b"hi"
    assert many == [b"%d" % number for number in range(10)]
    assert error.code == 5


# Our channel, a stock server


class Stock(grpc.GenericRpcHandler):
    """A stock grpc.aio servicer, without generated code."""

    def __init__(self):
        self.cancelled = asyncio.Event()
        self.metadata = None
        self.remaining = None

    def service(self, details):
        name = details.method.removeprefix("/t/")
        kinds = {
            "Echo": grpc.unary_unary_rpc_method_handler(self.echo),
            "Fail": grpc.unary_unary_rpc_method_handler(self.fail),
            "Hang": grpc.unary_unary_rpc_method_handler(self.hang),
            "Count": grpc.unary_stream_rpc_method_handler(self.count),
            "Join": grpc.stream_unary_rpc_method_handler(self.join),
            "Chat": grpc.stream_stream_rpc_method_handler(self.chat),
        }
        return kinds.get(name)

    async def echo(self, request, context):
        self.metadata = dict(context.invocation_metadata())
        self.remaining = context.time_remaining()
        await context.send_initial_metadata((("x-initial", "i"),))
        context.set_trailing_metadata((("x-trailer", "t"),))
        return request

    async def fail(self, request, context):
        rich = status_pb2.Status(code=5, message="nö\n100%", details=[detail()])
        await context.abort_with_status(rpc_status.to_status(rich))

    async def hang(self, request, context):
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()

    async def count(self, request, context):
        await context.send_initial_metadata((("x-initial", "i"), ("x-raw-bin", b"\x00\x01\xff")))
        for number in range(int(request)):
            yield b"%d" % number
        context.set_trailing_metadata((("x-trailer", "t"),))

    async def join(self, requests, context):
        return b"".join([request async for request in requests])

    async def chat(self, requests, context):
        async for request in requests:
            yield request.upper()


@contextlib.asynccontextmanager
async def stock_server(handler, **options):
    server = grpc.aio.server(**options)
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield server, f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


@pytest.fixture
async def theirs():
    return Stock()


@pytest.fixture
async def ours(theirs):
    async with stock_server(theirs) as (_, address), GrpcTransport() as transport:
        channel = transport.connect(address)
        yield channel
        await channel.close()


def unary(channel, name, body=b"", **options):
    return channel.unary(f"/t/{name}", body, content_type=PROTOBUF, **options)


async def test_our_unary_call_reaches_a_stock_server_with_metadata_and_deadline(ours, theirs):
    assert await unary(ours, "Echo", b"hi", metadata={"x-a": "1", "x-raw-bin": "AAE"}, timeout=30) == b"hi"
    assert theirs.metadata["x-a"] == "1"
    assert theirs.metadata["x-raw-bin"] == b"\x00\x01"
    assert 25 < theirs.remaining < 31


async def test_our_calls_at_a_time_to_a_stock_server(ours):
    bodies = [b"%d" % number for number in range(500)]
    assert await asyncio.gather(*(unary(ours, "Echo", body) for body in bodies)) == bodies


async def test_our_large_messages_pass_a_stock_server(ours):
    assert await unary(ours, "Echo", LARGE) == LARGE


async def test_a_stock_servers_status_arrives_with_details(ours):
    with pytest.raises(NotFound) as caught:
        await unary(ours, "Fail")
    assert caught.value.message == "nö\n100%"
    assert caught.value.details == (detail().SerializeToString(),)


async def test_a_stock_server_that_doesnt_serve_a_method_is_understood(ours):
    with pytest.raises(Unimplemented):
        await unary(ours, "Nothing")


async def test_our_streams_work_with_a_stock_server(ours):
    count = await ours.stream("/t/Count", content_type=PROTOBUF)
    await count.send(b"1000")
    await count.end()
    assert [await count.receive() for _ in range(1001)] == [*(b"%d" % number for number in range(1000)), None]
    assert dict(count.metadata)["x-initial"] == "i"
    assert dict(count.metadata)["x-raw-bin"] == "AAH/"
    assert dict(count.trailers)["x-trailer"] == "t"
    join = await ours.stream("/t/Join", content_type=PROTOBUF)
    for number in range(1000):
        await join.send(b"%d" % number)
    await join.end()
    assert await join.receive() == b"".join(b"%d" % number for number in range(1000))
    assert await join.receive() is None
    chat = await ours.stream("/t/Chat", content_type=PROTOBUF)
    for word in (b"a", LARGE, b""):
        await chat.send(word)
        assert await chat.receive() == word.upper()
    await chat.end()
    assert await chat.receive() is None


async def test_our_deadline_ends_a_stock_servers_handler(ours, theirs):
    with pytest.raises(DeadlineExceeded):
        await unary(ours, "Hang", timeout=0.2)
    await theirs.cancelled.wait()


async def test_our_cancellation_ends_a_stock_servers_handler(ours, theirs):
    stream = await ours.stream("/t/Hang", content_type=PROTOBUF)
    await stream.send(b"")
    await stream.end()
    assert await unary(ours, "Echo", b"x") == b"x"
    stream.cancel()
    with pytest.raises(Cancelled):
        await stream.receive()
    await theirs.cancelled.wait()


async def test_a_stock_servers_gzip_is_understood(theirs):
    async with stock_server(theirs, compression=grpc.Compression.Gzip) as (_, address), GrpcTransport() as transport:
        channel = transport.connect(address)
        assert await unary(channel, "Echo", LARGE) == LARGE
        await channel.close()


async def test_a_stock_servers_limit_on_size_is_understood(theirs):
    options = [("grpc.max_receive_message_length", 1000)]
    async with stock_server(theirs, options=options) as (_, address), GrpcTransport() as transport:
        channel = transport.connect(address)
        with pytest.raises(ResourceExhausted):
            await unary(channel, "Echo", bytes(2000))
        assert await unary(channel, "Echo", b"next") == b"next"
        await channel.close()


async def test_calls_wait_for_a_stock_servers_limit_on_concurrent_streams(theirs):
    options = [("grpc.max_concurrent_streams", 3)]
    async with stock_server(theirs, options=options) as (_, address), GrpcTransport() as transport:
        channel = transport.connect(address)
        bodies = [b"%d" % number for number in range(50)]
        assert await asyncio.gather(*(unary(channel, "Echo", body) for body in bodies)) == bodies
        await channel.close()


async def test_a_stock_server_that_stops_is_left_in_good_order(theirs):
    async with stock_server(theirs) as (server, address), GrpcTransport() as transport:
        channel = transport.connect(address)
        hanging = asyncio.create_task(unary(channel, "Hang"))
        assert await unary(channel, "Echo", b"x") == b"x"
        await server.stop(0.1)
        with pytest.raises(StatusError):
            await hanging
        with pytest.raises(Unavailable):
            await unary(channel, "Echo", b"x")
        await channel.close()
