"""The client of connectrpc.com/conformance, on ketch; `conformance.py` has it started.

Standard input says what to call, standard output what came of it: messages with four bytes of length before them.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from frames import answer, ask
from peers import KEPT

from ketch import Client, StatusError, context
from ketch.registries.static import StaticRegistry
from ketch.registry import Instance

sys.path.insert(0, str(KEPT / "conformance"))  # generated from the suite's own .proto files

from connectrpc.conformance.v1.client_compat_pb2 import (
    ClientCompatRequest,
    ClientCompatResponse,
    ClientErrorResult,
    ClientResponseResult,
)
from connectrpc.conformance.v1.config_pb2 import COMPRESSION_GZIP, STREAM_TYPE_FULL_DUPLEX_BIDI_STREAM
from connectrpc.conformance.v1.service_ketch import ConformanceService, ConformanceServiceStub
from connectrpc.conformance.v1.service_pb2 import Error, Header
from google.protobuf.any_pb2 import Any as Packed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

#: Bytes of a message, where the suite says nothing; calls at a time.
MOST = 16 * 1024 * 1024
AT_A_TIME = 8


class Conversation:
    """One call: what was asked for, and what has come of it."""

    def __init__(self, wanted: ClientCompatRequest, client: Client) -> None:
        self.wanted = wanted
        self.result = ClientResponseResult()
        self.stub = client.stub(ConformanceServiceStub, compress=wanted.compression == COMPRESSION_GZIP)
        names = {method.name: name for name, method in ConformanceService.methods.items()}
        self.name = names[wanted.method]
        self.method = ConformanceService.methods[self.name]
        self.replied = asyncio.Event()
        self.ended = asyncio.Event()

    async def run(self) -> ClientResponseResult:
        """Make the call; return what came of it."""
        call = asyncio.ensure_future(self.call())
        try:
            await call
        except StatusError as error:
            self.fail(error)
        except asyncio.CancelledError:
            self.result.error.CopyFrom(Error(code=1, message="cancelled"))
        return self.result

    async def call(self) -> None:
        """Make the call, of whatever kind."""
        wanted, cardinality = self.wanted, self.method.cardinality
        options: dict[str, Any] = {"metadata": read_headers(wanted.request_headers)}
        if wanted.HasField("timeout_ms"):
            options["timeout"] = wanted.timeout_ms / 1000
        requests = self.requests()
        first: Any = requests if cardinality.streams_requests else await anext(requests)
        if cardinality.streams_replies:
            await self.many(getattr(self.stub, self.name)(first, **options))
            return
        with context.ReplyMetadata() as received:
            made = asyncio.ensure_future(getattr(self.stub, self.name)(first, **options))
            try:
                await self.cancelling(made, made.cancel)
            finally:
                self.keep(received.metadata, received.trailers)

    async def many(self, replies: Any) -> None:
        """Take the replies of a stream."""
        taking = asyncio.ensure_future(self.take(replies))
        try:
            await self.cancelling(taking, taking.cancel)
        finally:
            self.keep(replies.metadata, replies.trailers)
            await replies.aclose()

    async def take(self, replies: Any) -> None:
        """Take all replies, or as many as are wanted before the call is cancelled."""
        cancel = self.wanted.cancel
        async for reply in replies:
            self.result.payloads.append(reply.payload)
            self.replied.set()
            if cancel.after_num_responses and len(self.result.payloads) == cancel.after_num_responses:
                raise asyncio.CancelledError

    async def cancelling(self, task: asyncio.Task[Any], cancel: Any) -> None:
        """Wait for the call, or cancel it when the suite wants that."""
        wanted = self.wanted.cancel
        timing = wanted.WhichOneof("cancel_timing") if self.wanted.HasField("cancel") else None
        if self.wanted.HasField("cancel") and timing != "after_num_responses":
            await asyncio.wait([task, asyncio.ensure_future(self.ended.wait())], return_when=asyncio.FIRST_COMPLETED)
            if timing == "after_close_send_ms":
                await asyncio.wait([task], timeout=wanted.after_close_send_ms / 1000)
            cancel()
        reply = await task
        if reply is not None:
            self.result.payloads.append(reply.payload)

    async def requests(self) -> AsyncIterator[Any]:
        """Yield the requests, in turn with the replies where both go at a time."""
        wanted = self.wanted
        turns = wanted.stream_type == STREAM_TYPE_FULL_DUPLEX_BIDI_STREAM
        for number, packed in enumerate(wanted.request_messages):
            if turns and number:
                await self.replied.wait()
                self.replied.clear()
            await asyncio.sleep(wanted.request_delay_ms / 1000)
            request = self.method.request()
            packed.Unpack(request)
            if not self.method.cardinality.streams_requests:
                self.ended.set()
            yield request
        if turns:
            await self.replied.wait()
        self.ended.set()
        if wanted.HasField("cancel") and wanted.cancel.WhichOneof("cancel_timing") == "before_close_send":
            await asyncio.Event().wait()

    def keep(self, metadata: Mapping[str, str], trailers: Mapping[str, str]) -> None:
        """Note what came along."""
        self.result.response_headers.extend(Header(name=n, value=[v]) for n, v in metadata.items())
        self.result.response_trailers.extend(Header(name=n, value=[v]) for n, v in trailers.items())

    def fail(self, error: StatusError) -> None:
        """Note how the call ended."""
        details = [Packed.FromString(detail) for detail in error.details]
        self.result.error.CopyFrom(Error(code=int(error.code), message=error.message, details=details))


def read_headers(headers: Any) -> dict[str, str | bytes]:
    """Return headers as metadata."""
    return {header.name.lower(): ",".join(header.value) for header in headers}


async def one(wanted: ClientCompatRequest) -> ClientCompatResponse:
    """Make one call, over a connection of its own."""
    limit = wanted.message_receive_limit or MOST
    registry = StaticRegistry(
        [Instance("connectrpc.conformance.v1.ConformanceService", "peer", f"{wanted.host}:{wanted.port}")]
    )
    with tempfile.TemporaryDirectory() as folder:
        transport = f"grpc://?max_message_size={limit}&max_send_size={MOST}"
        flags = tls_flags(wanted, Path(folder))
        try:
            async with Client.from_env(
                flags, environ={}, registry=registry, broker="memory", transport=transport
            ) as client:
                result = await Conversation(wanted, client).run()
        except Exception as error:  # noqa: BLE001 - the suite is told, whatever it is
            return ClientCompatResponse(test_name=wanted.test_name, error=ClientErrorResult(message=repr(error)))
    return ClientCompatResponse(test_name=wanted.test_name, response=result)


def tls_flags(wanted: ClientCompatRequest, folder: Path) -> list[str]:
    """Return the settings for TLS, with certificates in a folder."""
    files = {"ca": wanted.server_tls_cert, "cert": wanted.client_tls_creds.cert, "key": wanted.client_tls_creds.key}
    flags = ["--client-request-timeout", "0"]
    for name, content in files.items():
        if content:
            file = folder / f"{name}.pem"
            file.write_bytes(content)
            file.chmod(0o600)
            flags += [f"--client-tls-{name}", str(file)]
    return flags


async def main() -> None:
    """Make the calls that standard input asks for."""
    room = asyncio.Semaphore(AT_A_TIME)

    async def make(wanted: ClientCompatRequest) -> None:
        try:
            answer(sys.stdout.buffer, await one(wanted))
        finally:
            room.release()

    async with asyncio.TaskGroup() as calls:
        while True:
            await room.acquire()
            wanted = await asyncio.to_thread(ask, sys.stdin.buffer, ClientCompatRequest)
            if wanted is None:
                return
            calls.create_task(make(wanted))


if __name__ == "__main__":
    asyncio.run(main())
