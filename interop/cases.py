"""The cases of gRPC's interop-test-descriptions.md, as a ketch client runs them; each fails by an assertion.

The cases that need credentials of a cloud (`compute_engine_creds`, `jwt_token_creds`, …) don't apply: they test who
signs tokens, not gRPC.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from contract.empty_pb2 import Empty
from contract.messages_pb2 import (
    BoolValue,
    EchoStatus,
    Payload,
    ResponseParameters,
    SimpleRequest,
    SimpleResponse,
    StreamingInputCallRequest,
    StreamingInputCallResponse,
    StreamingOutputCallRequest,
    StreamingOutputCallResponse,
)
from contract.test_ketch import TestServiceStub, UnimplementedServiceStub
from sizes import INITIAL, LARGE_REPLY, LARGE_REQUEST, REPLIES, REQUESTS, SPECIAL, TRAILING

from ketch import Cancelled, Client, DeadlineExceeded, InvalidArgument, StatusError, Unimplemented, Unknown, context

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

    from ketch.transport import Channel, Stream

PROTOBUF: Final = "application/protobuf"
PATH: Final = "/grpc.testing.TestService/"
METADATA: Final = {INITIAL: "test_initial_metadata_value", TRAILING: b"\xab\xab\xab"}


@dataclass(frozen=True)
class Server:
    """What is tested: a client that finds it, and a channel to it for what the typed calls don't show."""

    client: Client
    channel: Channel
    new_client: Callable[[], Client]

    @property
    def stub(self) -> TestServiceStub:
        """A stub of the contract."""
        return self.client.stub(TestServiceStub)


async def empty_unary(server: Server) -> None:
    """Nothing for nothing."""
    assert await server.stub.empty_call(Empty()) == Empty()


async def large_unary(server: Server) -> None:
    """Messages larger than a window."""
    await _large(server.stub, _request())


async def very_large_request(server: Server) -> None:
    """A request far above the customary limit; it is raised on both sides."""
    request = SimpleRequest(response_size=10, payload=Payload(body=bytes(10 * 1024 * 1024)))
    assert len((await server.stub.unary_call(request)).payload.body) == 10


async def cacheable_unary(server: Server) -> None:
    """The same reply twice; gRPC has no GET on the wire any more, so without a proxy both calls merely succeed."""
    request = SimpleRequest(payload=Payload(body=str(time.time_ns()).encode()))
    for _ in range(2):
        await server.stub.cacheable_unary_call(request, metadata={"x-user-ip": "1.2.3.4"})


async def client_compressed_unary(server: Server) -> None:
    """A server sees whether a request came compressed."""
    plain = server.client.stub(TestServiceStub, compress=False)
    await _expect(InvalidArgument, plain.unary_call(_request(expect_compressed=BoolValue(value=True))))
    await client_compressed_unary_noprobe(server)


async def client_compressed_unary_noprobe(server: Server) -> None:
    """The same with a server that takes compressed requests, but can't tell them."""
    compressing = server.client.stub(TestServiceStub, compress=True)
    plain = server.client.stub(TestServiceStub, compress=False)
    await _large(compressing, _request(expect_compressed=BoolValue(value=True)))
    await _large(plain, _request(expect_compressed=BoolValue(value=False)))


async def server_compressed_unary(server: Server) -> None:
    """A server compresses its reply, or doesn't, as it is told."""
    for wanted in (True, False):
        request = _request(response_compressed=BoolValue(value=wanted))
        await _large(server.stub, request)
        stream = await server.channel.stream(PATH + "UnaryCall", content_type=PROTOBUF)
        await stream.send(request.SerializeToString())
        await stream.end()
        assert await _sizes(stream, SimpleResponse) == [(LARGE_REPLY, wanted)]


async def client_streaming(server: Server) -> None:
    """Many requests, one reply."""
    reply = await server.stub.streaming_input_call(_each(_input(size) for size in (27_182, 8, 1_828, 45_904)))
    assert reply.aggregated_payload_size == 74_922


async def client_compressed_streaming(server: Server) -> None:
    """A client says of each message of a stream whether it is compressed."""
    plain = server.client.stub(TestServiceStub, compress=False)
    probe = plain.streaming_input_call(_each([_input(27_182, expect_compressed=BoolValue(value=True))]))
    await _expect(InvalidArgument, probe)
    await client_compressed_streaming_noprobe(server)


async def client_compressed_streaming_noprobe(server: Server) -> None:
    """The same with a server that takes compressed messages, but can't tell them."""
    stream = await server.channel.stream(PATH + "StreamingInputCall", content_type=PROTOBUF, compress=True)
    await stream.send(_input(27_182, expect_compressed=BoolValue(value=True)).SerializeToString())
    stream.compress = False
    await stream.send(_input(45_904, expect_compressed=BoolValue(value=False)).SerializeToString())
    await stream.end()
    body = await stream.receive()
    assert body is not None
    assert StreamingInputCallResponse.FromString(body).aggregated_payload_size == 73_086
    assert await stream.receive() is None


async def server_streaming(server: Server) -> None:
    """One request, many replies."""
    replies = server.stub.streaming_output_call(_output(*REPLIES))
    assert [len(reply.payload.body) async for reply in replies] == list(REPLIES)


async def server_compressed_streaming(server: Server) -> None:
    """A server compresses one message of a stream and not the next."""
    request = StreamingOutputCallRequest(
        response_parameters=[
            ResponseParameters(size=31_415, compressed=BoolValue(value=True)),
            ResponseParameters(size=92_653, compressed=BoolValue(value=False)),
        ]
    )
    replies = server.stub.streaming_output_call(request)
    assert [len(reply.payload.body) async for reply in replies] == [31_415, 92_653]
    stream = await server.channel.stream(PATH + "StreamingOutputCall", content_type=PROTOBUF)
    await stream.send(request.SerializeToString())
    await stream.end()
    assert await _sizes(stream, StreamingOutputCallResponse) == [(31_415, True), (92_653, False)]


async def ping_pong(server: Server) -> None:
    """A request is sent when the reply to the one before is there."""
    ball = asyncio.Queue[StreamingOutputCallRequest | None]()
    sizes = list(zip(REPLIES, REQUESTS, strict=True))
    ball.put_nowait(_output(sizes[0][0], body=sizes[0][1]))
    seen = []
    async for reply in server.stub.full_duplex_call(_until_none(ball)):
        seen.append(len(reply.payload.body))
        more = sizes[len(seen) : len(seen) + 1]
        ball.put_nowait(_output(more[0][0], body=more[0][1]) if more else None)
    assert seen == list(REPLIES)


async def empty_stream(server: Server) -> None:
    """A stream without a message either way."""
    assert [reply async for reply in server.stub.full_duplex_call(_each([]))] == []


async def timeout_on_sleeping_server(server: Server) -> None:
    """A call ends when its time is up."""
    replies = server.stub.full_duplex_call(_forever(_output(body=27_182)), timeout=0.001)
    await _expect(DeadlineExceeded, anext(replies))


async def cancel_after_begin(server: Server) -> None:
    """A call is cancelled when its headers are sent and no message is."""
    began = asyncio.Event()

    async def requests() -> AsyncIterator[StreamingInputCallRequest]:
        began.set()
        await asyncio.Event().wait()
        yield StreamingInputCallRequest()

    call = asyncio.ensure_future(server.stub.streaming_input_call(requests()))
    await began.wait()
    call.cancel()
    await asyncio.wait([call])
    assert call.cancelled()
    stream = await server.channel.stream(PATH + "StreamingInputCall", content_type=PROTOBUF)
    stream.cancel()
    await _expect(Cancelled, stream.receive())
    await empty_unary(server)


async def cancel_after_first_response(server: Server) -> None:
    """A call is cancelled when the first reply is there."""
    request = _output(31_415, body=27_182)
    async with server.stub.full_duplex_call(_forever(request)) as replies:
        assert len((await anext(replies)).payload.body) == 31_415
    stream = await server.channel.stream(PATH + "FullDuplexCall", content_type=PROTOBUF)
    await stream.send(request.SerializeToString())
    assert await stream.receive() is not None
    stream.cancel()
    await _expect(Cancelled, stream.receive())
    await empty_unary(server)


async def custom_metadata(server: Server) -> None:
    """Metadata comes back: text ahead of the reply, bytes after it."""
    with context.ReplyMetadata() as received:
        await server.stub.unary_call(_request(), metadata=METADATA)
    _check_metadata(received)
    replies = server.stub.full_duplex_call(_each([_output(LARGE_REPLY, body=LARGE_REQUEST)]), metadata=METADATA)
    assert [len(reply.payload.body) async for reply in replies] == [LARGE_REPLY]
    _check_metadata(replies)


async def status_code_and_message(server: Server) -> None:
    """A status crosses the wire with its message."""
    wanted = EchoStatus(code=2, message="test status message")
    assert (await _expect(Unknown, server.stub.unary_call(SimpleRequest(response_status=wanted)))) == wanted.message
    replies = server.stub.full_duplex_call(_each([StreamingOutputCallRequest(response_status=wanted)]))
    assert (await _expect(Unknown, anext(replies))) == wanted.message


async def special_status_message(server: Server) -> None:
    """So does a message that isn't ASCII."""
    wanted = EchoStatus(code=2, message=SPECIAL)
    assert (await _expect(Unknown, server.stub.unary_call(SimpleRequest(response_status=wanted)))) == SPECIAL


async def unimplemented_method(server: Server) -> None:
    """A method that isn't there."""
    await _expect(Unimplemented, server.stub.unimplemented_call(Empty()))


async def unimplemented_service(server: Server) -> None:
    """A service that isn't there."""
    # Found under the name of the one that is there; the path says which is meant.
    stub = server.client.stub(UnimplementedServiceStub, TestServiceStub.contract)
    await _expect(Unimplemented, stub.unimplemented_call(Empty()))


async def pick_first_unary(server: Server) -> None:
    """All calls of a channel reach one server."""
    request = SimpleRequest(response_size=1, payload=Payload(body=b"\0"), fill_server_id=True)
    assert len({(await server.stub.unary_call(request)).server_id for _ in range(100)}) == 1


async def rpc_soak(server: Server) -> None:
    """Call after call on one channel."""
    for _ in range(100):
        await large_unary(server)


async def channel_soak(server: Server) -> None:
    """Call after call, each on a channel of its own."""
    for _ in range(20):
        async with server.new_client() as client:
            await _large(client.stub(TestServiceStub), _request())


async def concurrent_large_unary(server: Server) -> None:
    """A thousand large calls at a time on one channel."""
    await asyncio.gather(*(large_unary(server) for _ in range(1_000)))


async def long_lived_channel(server: Server) -> None:
    """A channel that did nothing for a while."""
    for _ in range(3):
        await large_unary(server)
        await asyncio.sleep(0.5)


def _request(**more: Any) -> SimpleRequest:
    return SimpleRequest(response_size=LARGE_REPLY, payload=Payload(body=bytes(LARGE_REQUEST)), **more)


def _input(size: int, **more: Any) -> StreamingInputCallRequest:
    return StreamingInputCallRequest(payload=Payload(body=bytes(size)), **more)


def _output(*sizes: int, body: int = 0) -> StreamingOutputCallRequest:
    parameters = [ResponseParameters(size=size) for size in sizes]
    return StreamingOutputCallRequest(response_parameters=parameters, payload=Payload(body=bytes(body)))


async def _large(stub: TestServiceStub, request: SimpleRequest) -> None:
    assert len((await stub.unary_call(request, timeout=60)).payload.body) == LARGE_REPLY


async def _expect(error: type[StatusError], call: Awaitable[Any]) -> str:
    try:
        reply = await call
    except error as caught:
        return caught.message
    raise AssertionError(f"expected {error.__name__}, got {type(reply).__name__}")


async def _sizes(stream: Stream, reply: type[Any]) -> list[tuple[int, bool]]:
    """Return the sizes of a stream's payloads, and which of them came compressed."""
    seen = []
    while (body := await stream.receive()) is not None:
        compressed: bool = stream.inbox.compressed  # type: ignore[attr-defined]  # no part of the transport's contract
        seen.append((len(reply.FromString(body).payload.body), compressed))
    return seen


def _check_metadata(received: Any) -> None:
    assert received.metadata.get(INITIAL) == METADATA[INITIAL], received.metadata
    assert context.from_base64(received.trailers.get(TRAILING, "")) == [METADATA[TRAILING]], received.trailers


async def _each(requests: Iterable[Any]) -> AsyncIterator[Any]:
    for request in requests:
        yield request


async def _until_none(queue: asyncio.Queue[Any]) -> AsyncIterator[Any]:
    while (request := await queue.get()) is not None:
        yield request


async def _forever(request: Any) -> AsyncIterator[Any]:
    yield request
    await asyncio.Event().wait()


#: The cases by their names.
CASES: Final[dict[str, Callable[[Server], Awaitable[None]]]] = {
    case.__name__: case
    for case in (
        *(client_compressed_unary_noprobe, client_compressed_streaming_noprobe, very_large_request),
        *(empty_unary, cacheable_unary, large_unary, client_compressed_unary, server_compressed_unary),
        *(client_streaming, client_compressed_streaming, server_streaming, server_compressed_streaming),
        *(ping_pong, empty_stream, timeout_on_sleeping_server, cancel_after_begin, cancel_after_first_response),
        *(custom_metadata, status_code_and_message, special_status_message, unimplemented_method),
        *(unimplemented_service, pick_first_unary, rpc_soak, channel_soak, concurrent_large_unary, long_lived_channel),
    )
}
