"""gRPC's interop server, as a ketch service: `python interop/server.py --port 10000`.

What it does is in the section "Server" of gRPC's interop-test-descriptions.md.
"""

from __future__ import annotations

import argparse
import asyncio
import time
import uuid
from typing import TYPE_CHECKING

from contract.empty_pb2 import Empty
from contract.messages_pb2 import (
    BoolValue,
    EchoStatus,
    Payload,
    SimpleRequest,
    SimpleResponse,
    StreamingInputCallRequest,
    StreamingInputCallResponse,
    StreamingOutputCallRequest,
    StreamingOutputCallResponse,
)
from contract.test_ketch import TestService
from sizes import INITIAL, TRAILING, TRANSPORT

from ketch import InvalidArgument, Service, Unimplemented, context
from ketch.errors import status_error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SERVER_ID = str(uuid.uuid4())


class Interop(TestService):
    """Answers what the cases of the official clients ask."""

    async def empty_call(self, _: Empty, /) -> Empty:
        """Return nothing."""
        return Empty()

    async def unary_call(self, request: SimpleRequest, /) -> SimpleResponse:
        """Return as many bytes as were asked for."""
        check_compressed(request.HasField("expect_compressed"), request.expect_compressed)
        echo_metadata()
        echo_status(request.response_status)
        if request.HasField("response_compressed"):
            context.current().compress = request.response_compressed.value
        reply = SimpleResponse(payload=Payload(body=bytes(request.response_size)))
        if request.fill_server_id:
            reply.server_id = SERVER_ID
        return reply

    async def cacheable_unary_call(self, _: SimpleRequest, /) -> SimpleResponse:
        """Return the time, for a proxy to keep."""
        context.current().reply_metadata["cache-control"] = "max-age=60, public"
        return SimpleResponse(payload=Payload(body=str(time.time_ns()).encode()))

    async def streaming_output_call(
        self, request: StreamingOutputCallRequest, /
    ) -> AsyncIterator[StreamingOutputCallResponse]:
        """Return a reply for each of the request's parameters."""
        async for reply in answer(request):
            yield reply

    async def streaming_input_call(
        self, requests: AsyncIterator[StreamingInputCallRequest], /
    ) -> StreamingInputCallResponse:
        """Return how many bytes came."""
        size = 0
        async for request in requests:
            check_compressed(request.HasField("expect_compressed"), request.expect_compressed)
            size += len(request.payload.body)
        return StreamingInputCallResponse(aggregated_payload_size=size)

    async def full_duplex_call(
        self, requests: AsyncIterator[StreamingOutputCallRequest], /
    ) -> AsyncIterator[StreamingOutputCallResponse]:
        """Answer each request at once."""
        echo_metadata()
        async for request in requests:
            echo_status(request.response_status)
            async for reply in answer(request):
                yield reply

    async def half_duplex_call(
        self, requests: AsyncIterator[StreamingOutputCallRequest], /
    ) -> AsyncIterator[StreamingOutputCallResponse]:
        """Answer the requests when all of them are there."""
        for request in [request async for request in requests]:
            async for reply in answer(request):
                yield reply

    async def unimplemented_call(self, _: Empty, /) -> Empty:
        """Refuse."""
        raise Unimplemented("UnimplementedCall isn't implemented, as the interop tests want it")


def check_compressed(said: bool, expected: BoolValue) -> None:  # noqa: FBT001 - whether the field below was set
    """Refuse a message that isn't compressed as its sender says."""
    if said and expected.value != context.current().compressed:
        raise InvalidArgument(f"compressed: {context.current().compressed}, expected: {expected.value}")


def echo_metadata() -> None:
    """Send the caller's metadata back."""
    here = context.current()
    if INITIAL in here.metadata:
        here.reply_metadata[INITIAL] = here.metadata[INITIAL]
    if TRAILING in here.metadata:
        here.trailers[TRAILING] = here.metadata[TRAILING]


def echo_status(wanted: EchoStatus) -> None:
    """End the call with the status that the request names, if it does."""
    if wanted.code:
        raise status_error(wanted.code, wanted.message)


async def answer(request: StreamingOutputCallRequest) -> AsyncIterator[StreamingOutputCallResponse]:
    """Yield a reply for each of the request's parameters."""
    for wanted in request.response_parameters:
        if wanted.interval_us:
            await asyncio.sleep(wanted.interval_us / 1e6)
        if wanted.HasField("compressed"):
            context.current().compress = wanted.compressed.value
        yield StreamingOutputCallResponse(payload=Payload(body=bytes(wanted.size)))


def main() -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=10_000)
    parser.add_argument("--tls_cert_file", help="with --tls_key_file: serve TLS")
    parser.add_argument("--tls_key_file")
    arguments = parser.parse_args()
    flags = []
    if arguments.tls_cert_file:
        flags = ["--server-tls-cert", arguments.tls_cert_file, "--server-tls-key", arguments.tls_key_file]
    service = Service(
        "ketch.interop",
        address=f"127.0.0.1:{arguments.port}",
        registry="memory",
        broker="memory",
        transport=TRANSPORT,
    )
    service.serve(Interop())
    service.run(flags)


if __name__ == "__main__":
    main()
