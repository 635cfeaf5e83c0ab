"""ketch health: whether services do their work, as they say by grpc.health.v1; exit code 1 if any doesn't."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError

from .. import settings
from ..codec import PROTOBUF
from ..errors import StatusError, Unavailable
from ..health import Status
from ..options import Options, build
from ..standard.messages import message
from .services import TOPICS, columns

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from ..transport import Transport


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser("health", help="ask services whether they do their work", description=__doc__)
    parser.add_argument("name", nargs="?", help="only this service, or whoever serves this contract")
    parser.add_argument("--address", default="", help="ask this address, which may be any gRPC server")
    settings.add_flags(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Ask and print."""
    options = build(settings.read(arguments), {})
    rows = asyncio.run(_ask_all(options, arguments.name, arguments.address))
    print(columns([("SERVICE", "ADDRESS", "STATUS", "NOT SERVING"), *rows]))
    return 0 if all(row[2] == Status.SERVING.name for row in rows) else 1


async def _ask_all(options: Options, name: str | None, address: str) -> Sequence[tuple[str, str, str, str]]:
    async with options.transport as transport:
        places = [("", address)] if address else await _find(options, name)
        timeout = options.request_timeout
        asked = [_ask(transport, service, place, timeout) for service, place in places]
        return await asyncio.gather(*asked)


async def _find(options: Options, name: str | None) -> list[tuple[str, str]]:
    async with options.registry as registry, aclosing(registry.watch(name)) as snapshots:
        async for snapshot in snapshots:
            found = [(one.service, one.address) for one in snapshot if not one.service.startswith(TOPICS)]
            if found:
                return sorted(found)
            break
    raise Unavailable(f"{name or 'services'}: no instance in registry {registry.name} {registry.location}")


async def _ask(transport: Transport, service: str, address: str, timeout: float) -> tuple[str, str, str, str]:
    channel = transport.connect(address)

    async def call(method: str, request: Any) -> bytes:
        path = f"/grpc.health.v1.Health/{method}"
        return await channel.unary(path, request.SerializeToString(), content_type=PROTOBUF, timeout=timeout)

    try:
        reply = await call("Check", message("grpc.health.v1.HealthCheckRequest")())
        status = message("grpc.health.v1.HealthCheckResponse").FromString(reply).status
        trouble = ""
        if status != Status.SERVING:
            listed = await call("List", message("grpc.health.v1.HealthListRequest")())
            statuses = message("grpc.health.v1.HealthListResponse").FromString(listed).statuses
            trouble = ", ".join(name for name, one in sorted(statuses.items()) if name and one.status != Status.SERVING)
        return service or "-", address, Status(status).name, trouble or "-"
    except StatusError as error:
        return service or "-", address, error.code.name, error.message
    except DecodeError as error:
        return service or "-", address, Status.UNKNOWN.name, f"what answers there is no health service: {error}"
    finally:
        await channel.close()
