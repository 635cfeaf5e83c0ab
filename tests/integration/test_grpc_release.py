"""What a call held is let go of when it ends, whether or not the garbage collector ever comes."""

import gc
import tracemalloc

from ketch.transport import Request, Route
from ketch.transports.grpc import GrpcTransport

SIZE = 2 * 1024 * 1024


async def test_large_messages_are_gone_when_their_calls_have_ended() -> None:
    async def echo(request: Request) -> bytes:
        return request.body

    transport = GrpcTransport()
    listener = await transport.listen("127.0.0.1:0", {"/b/echo": Route(unary=echo)})
    channel = transport.connect(listener.address)
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        for _ in range(10):
            assert len(await channel.unary("/b/echo", bytes(SIZE), content_type="application/protobuf")) == SIZE
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
        await channel.close()
        await listener.stop(0)
    assert held < 3 * SIZE
