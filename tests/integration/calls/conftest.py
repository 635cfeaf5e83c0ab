"""Instances of the store, and clients that call it by a policy."""

import contextlib

import pytest

from ketch import Client
from ketch.policy import CallPolicy
from ketch.registries.memory import MemoryRegistry
from ketch.transports.grpc import GrpcTransport

from .store import Server


@pytest.fixture
async def registry():
    async with MemoryRegistry() as registry:
        yield registry


@pytest.fixture
async def servers(registry):
    async with contextlib.AsyncExitStack() as stack:

        async def start(*names, **fields):
            started = []
            for name in names:
                server = await Server(name).start(registry, **fields)
                stack.push_async_callback(server.listener.stop, 0)
                started.append(server)
            return started

        yield start


@pytest.fixture
async def clients(registry):
    async with contextlib.AsyncExitStack() as stack:

        async def make(named=None, **policy):
            policies = {"store": CallPolicy(**{"selector": "round_robin", **policy})}
            for name, of_name in (named or {}).items():
                policies[name] = of_name.over(policies[name]) if name in policies else of_name
            options = {"registry": registry, "transport": GrpcTransport(), "policies": policies}
            return await stack.enter_async_context(Client.from_env(environ={}, **options))

        yield make
