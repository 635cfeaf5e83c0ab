"""grpc.health.v1: what `Health` knows, for probes, load balancers and `grpc_health_probe`."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

from ..errors import Unavailable
from ..rpc import Cardinality, Method, Servicer
from .messages import message

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ..health import Health

CONTRACT: Final = "grpc.health.v1.Health"


def health_servicer(health: Health) -> Servicer:
    """Return what serves the contract."""
    request = message("grpc.health.v1.HealthCheckRequest")
    response = message("grpc.health.v1.HealthCheckResponse")
    everything = message("grpc.health.v1.HealthListRequest")
    listed = message("grpc.health.v1.HealthListResponse")

    class Serving(Servicer):
        contract = CONTRACT
        methods = {  # noqa: RUF012 - a mapping that nobody changes, as generated code has it
            "check": Method(CONTRACT, "Check", request, response, idempotent=True),
            "list": Method(CONTRACT, "List", everything, listed, idempotent=True),
            "watch": Method(CONTRACT, "Watch", request, response, Cardinality.SERVER_STREAM),
        }

        async def check(self, asked: Any) -> Any:
            return response(status=health.status(asked.service))

        async def list(self, _: Any) -> Any:
            return listed(statuses={name: response(status=health.status(name)) for name in health.names()})

        async def watch(self, asked: Any) -> AsyncIterator[Any]:
            async with aclosing(health.watch(asked.service)) as statuses:
                async for status in statuses:
                    yield response(status=status)
            raise Unavailable("the server is stopping")

    return Serving()
