"""The server of connectrpc.com/conformance, as a ketch service; `conformance.py` has it started.

Standard input says what it shall be like, standard output where it is: messages with four bytes of length before them.
What the methods do is in the comments of the suite's service.proto.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from frames import answer, ask
from peers import KEPT

from ketch import Service, StatusError, Unimplemented, context
from ketch.errors import status_error

sys.path.insert(0, str(KEPT / "conformance"))  # generated from the suite's own .proto files

from connectrpc.conformance.v1.server_compat_pb2 import ServerCompatRequest, ServerCompatResponse
from connectrpc.conformance.v1.service_ketch import ConformanceService
from connectrpc.conformance.v1.service_pb2 import (
    BidiStreamResponse,
    ClientStreamResponse,
    ConformancePayload,
    Error,
    Header,
    IdempotentUnaryResponse,
    ServerStreamResponse,
    UnaryResponse,
)
from google.protobuf.any_pb2 import Any as Packed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

#: Bytes of a message, where the suite says nothing.
MOST = 16 * 1024 * 1024

Info = ConformancePayload.RequestInfo


class Conformance(ConformanceService):
    """Answers as each request says."""

    async def unary(self, request: Any, /) -> Any:
        """Return the one reply that is asked for, or its error."""
        return UnaryResponse(payload=await one(request.response_definition, [request]))

    async def idempotent_unary(self, request: Any, /) -> Any:
        """The same."""
        return IdempotentUnaryResponse(payload=await one(request.response_definition, [request]))

    async def client_stream(self, requests: AsyncIterator[Any], /) -> Any:
        """The same, as the first of the requests says."""
        seen = [request async for request in requests]
        definition = seen[0].response_definition if seen else None
        return ClientStreamResponse(payload=await one(definition, seen))

    async def server_stream(self, request: Any, /) -> AsyncIterator[Any]:
        """Yield the replies that are asked for, then the error."""
        definition = request.response_definition
        say_metadata(definition)
        async for payload in many(definition, definition.response_data, describe([request])):
            yield ServerStreamResponse(payload=payload)

    async def bidi_stream(self, requests: AsyncIterator[Any], /) -> AsyncIterator[Any]:
        """Yield a reply for each request, or all of them after the last request."""
        first = await anext(requests, None)
        if first is None:
            return
        definition = first.response_definition
        say_metadata(definition)
        left, seen = list(definition.response_data), [first]
        sent = 0
        if first.full_duplex:
            while left:
                await asyncio.sleep(definition.response_delay_ms / 1000)
                info = Info(requests=pack(seen)) if sent else describe(seen)
                yield BidiStreamResponse(payload=ConformancePayload(data=left.pop(0), request_info=info))
                sent += 1
                request = await anext(requests, None)
                if request is None:
                    seen = []
                    break
                seen = [request]
        else:
            seen += [request async for request in requests]
        info = None if sent else describe(seen)
        async for payload in many(definition, left, info):
            yield BidiStreamResponse(payload=payload)

    async def unimplemented(self, _: Any, /) -> Any:
        """Refuse."""
        raise Unimplemented("as the suite wants it")


async def one(definition: Any, requests: list[Any]) -> ConformancePayload:
    """Return the payload of a single reply."""
    info = describe(requests)
    if definition is None:
        return ConformancePayload(request_info=info)
    say_metadata(definition)
    await asyncio.sleep(definition.response_delay_ms / 1000)
    if definition.HasField("error"):
        raise failure(definition.error, info)
    return ConformancePayload(data=definition.response_data, request_info=info)


async def many(definition: Any, data: Iterable[bytes], info: Info | None) -> AsyncIterator[ConformancePayload]:
    """Yield payloads, the first one with what is known of the request; then fail, if that is asked for."""
    for item in data:
        await asyncio.sleep(definition.response_delay_ms / 1000)
        yield ConformancePayload(data=item, request_info=info)
        info = None
    if definition.HasField("error"):
        raise failure(definition.error, info)


def say_metadata(definition: Any) -> None:
    """Send what is asked for ahead of the reply and after it."""
    here = context.current()
    here.reply_metadata.update({header.name.lower(): ",".join(header.value) for header in definition.response_headers})
    here.trailers.update({header.name.lower(): ",".join(header.value) for header in definition.response_trailers})


def describe(requests: list[Any]) -> Info:
    """Return what is known of the call."""
    here = context.current()
    headers = [Header(name=name, value=[value]) for name, value in here.metadata.items()]
    info = Info(request_headers=headers, requests=pack(requests))
    left = here.remaining()
    if left is not None:
        info.timeout_ms = int(left * 1000)
    return info


def pack(messages: Iterable[Any]) -> list[Packed]:
    """Return messages as `Any`."""
    packed = []
    for message in messages:
        packed.append(Packed())
        packed[-1].Pack(message)
    return packed


def failure(error: Error, info: Info | None) -> StatusError:
    """Return the error that is asked for, with what is known of the request if no reply has said so."""
    details = [*error.details, *(pack([info]) if info is not None else [])]
    return status_error(error.code, error.message, details=[detail.SerializeToString() for detail in details])


def main() -> None:
    """Serve as standard input says, until stopped."""
    wanted = ask(sys.stdin.buffer, ServerCompatRequest)
    assert wanted is not None, "standard input said nothing"
    asyncio.run(serve(wanted))


async def serve(wanted: ServerCompatRequest) -> None:
    """Serve, and say where."""
    limit = wanted.message_receive_limit or MOST
    service = Service(
        "ketch.conformance",
        address="127.0.0.1:0",
        registry="memory",
        broker="memory",
        transport=f"grpc://?max_message_size={limit}&max_send_size={MOST}",
    )
    service.serve(Conformance())
    with tempfile.TemporaryDirectory() as folder:
        service.init(tls_flags(wanted, Path(folder)))
        async with service:
            host, port = service.address.rsplit(":", 1)
            certificate = wanted.server_creds.cert if wanted.use_tls else b""
            answer(sys.stdout.buffer, ServerCompatResponse(host=host, port=int(port), pem_cert=certificate))
            await service.wait()


def tls_flags(wanted: ServerCompatRequest, folder: Path) -> list[str]:
    """Return the settings for TLS, with certificates in a folder."""
    if not wanted.use_tls:
        return []
    files = {"cert": wanted.server_creds.cert, "key": wanted.server_creds.key, "client-ca": wanted.client_tls_cert}
    flags = []
    for name, content in files.items():
        if content:
            file = folder / f"{name}.pem"
            file.write_bytes(content)
            file.chmod(0o600)
            flags += [f"--server-tls-{name}", str(file)]
    return flags


if __name__ == "__main__":
    main()
