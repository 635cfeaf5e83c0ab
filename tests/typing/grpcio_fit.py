"""What a type checker must accept and refuse where grpcio's code meets ketch; see rpc.py."""

from typing import Any

import grpc.aio

from ketch import Client, Service, grpcio
from shippy.user.v1.user_pb2 import GetRequest, GetResponse


class Stub:
    """As mypy-protobuf types it."""

    def __init__(self, channel: grpc.Channel | grpc.aio.Channel) -> None:
        self.channel = channel


def add_servicer_to_server(servicer: object, server: grpc.Server | grpc.aio.Server) -> None:
    """As mypy-protobuf types it."""


class Guard(grpc.aio.ServerInterceptor):
    async def intercept_service(self, continuation: Any, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return await continuation(handler_call_details)


def host(service: Service) -> None:
    add_servicer_to_server(object(), grpcio.server(service))
    add_servicer_to_server(object(), grpcio.server(service, interceptors=[Guard()]))
    add_servicer_to_server(object(), service)  # type: ignore[arg-type]
    grpcio.server("users")  # type: ignore[arg-type]


async def call(client: Client, service: Service) -> str:
    Stub(grpcio.channel(client, "users"))
    Stub(grpcio.channel(service))
    Stub(client)  # type: ignore[arg-type]
    async with grpcio.channel("127.0.0.1:50051", compression=grpc.Compression.Gzip) as channel:
        get = channel.unary_unary("/users/Get", GetRequest.SerializeToString, GetResponse.FromString)
        reply = await get(GetRequest(id="1"), timeout=2.0, metadata=(("token", "t"),))
        return reply.user.name
