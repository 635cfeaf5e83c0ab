"""Server: grpc.aio's server as generated code sees it; what is registered is served by a ketch service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NoReturn

import grpc.aio

from .hosted import servicer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from concurrent.futures import Executor

    from ..service import Service

_OWN: Final = "ketch runs the server: Service(name, address='host:port'), then service.run() or `async with service:`"


def server(
    service: Service,
    *,
    interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
    migration_thread_pool: Executor | None = None,
) -> grpc.aio.Server:
    """Return what `add_…_to_server` functions take; the service serves what they add.

        service = Service("users", address=":50051")
        add_UserServiceServicer_to_server(Users(), grpcio.server(service))

    Args:
        service: serves it, with its middleware outermost; it must not run yet.
        interceptors: grpc.aio's, around each hosted call.
        migration_thread_pool: runs handlers that are plain functions; None for the event loop's own pool, which has
            a few threads more than the machine has cores.
    """
    return Server(service, interceptors, migration_thread_pool)


class Server(grpc.aio.Server):
    """Takes servicers for a ketch service; it is started, stopped and reached as that."""

    def __init__(
        self, service: Service, interceptors: Sequence[grpc.aio.ServerInterceptor], pool: Executor | None
    ) -> None:
        self._service = service
        self._interceptors = tuple(interceptors)
        self._pool = pool
        self._hosted: dict[str, dict[str, Any]] = {}

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Serve what generated code, or `grpc.method_handlers_generic_handler`, made.

        Raises:
            ConfigurationError: the contract is served already.
            NotImplementedError: a handler that finds methods in a way of its own.
        """
        for generic in generic_rpc_handlers:
            handlers = getattr(generic, "_method_handlers", None)  # the only place where they are told
            if not isinstance(handlers, dict) or not isinstance(generic, grpc.ServiceRpcHandler):
                raise NotImplementedError(
                    f"{type(generic).__name__}: a GenericRpcHandler that doesn't say which methods there are can't be "
                    "hosted; make it with grpc.method_handlers_generic_handler(service, handlers)"
                )
            self._host(generic.service_name(), {path.rpartition("/")[2]: one for path, one in handlers.items()})

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, Any]) -> None:
        """Serve a contract's handlers, by rpc; generated code says them a second time here.

        Raises:
            ConfigurationError: the contract is served already.
        """
        self._host(service_name, dict(method_handlers))

    def _host(self, contract: str, handlers: dict[str, Any]) -> None:
        if self._hosted.get(contract) == handlers:
            return
        self._service.serve(servicer(contract, handlers, self._interceptors, self._pool))
        self._hosted[contract] = handlers

    def add_insecure_port(self, address: str) -> NoReturn:
        """Raise: the service listens where it is told to."""
        raise NotImplementedError(f"add_insecure_port({address!r}): {_OWN}")

    def add_secure_port(self, address: str, server_credentials: grpc.ServerCredentials) -> NoReturn:
        """Raise: the service listens where it is told to."""
        raise NotImplementedError(f"add_secure_port({address!r}, …): {_OWN}")

    async def start(self) -> NoReturn:
        """Raise: the service is started."""
        raise NotImplementedError(f"start(): {_OWN}")

    async def stop(self, grace: float | None) -> NoReturn:
        """Raise: the service is stopped."""
        raise NotImplementedError(f"stop({grace}): {_OWN}")

    async def wait_for_termination(self, timeout: float | None = None) -> NoReturn:
        """Raise: the service runs until it is told to stop."""
        raise NotImplementedError(f"wait_for_termination({timeout}): {_OWN}")
