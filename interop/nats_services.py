"""Look at ketch's instances with NATS's own tool, `nats`, built from the Go module github.com/nats-io/natscli.

    python interop/nats_services.py

The exit code is pytest's. The first build takes two minutes or so.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from ketch.registries.nats import NatsRegistry, NatsServicesRegistry
from ketch.registry import Instance
from ketch.stats import Stats
from ketch.testing.servers import nats_server, program
from ketch.url import Url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from ketch.testing.servers import Server

    Tool = Callable[..., Awaitable[str]]

_TOOL = "github.com/nats-io/natscli/nats@v0.3.0"
_USER = Instance(
    "go.micro.srv.user",
    "go.micro.srv.user-1",
    "127.0.0.1:5001",
    contracts=("shippy.user.v1.UserService",),
    metadata={"transport": "grpc"},
)
_KINDS = ("nats://{}?ttl=5", "nats-services://{}?ttl=5", "nats://{}?ttl=5&format=go-micro")


@pytest.fixture(scope="module")
def binary(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Build the tool; return its path."""
    folder = tmp_path_factory.mktemp("natscli")
    go = program("go", "go.dev/dl", "/usr/local/go/bin")
    subprocess.run((go, "install", _TOOL), env={**os.environ, "GOBIN": str(folder)}, check=True)
    return str(folder / "nats")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[Server]:
    """Run NATS."""
    async with nats_server(jetstream=True) as running:
        yield running


@pytest.fixture
def address(server: Server) -> str:
    """Return the server's host:port."""
    return server.url.partition("://")[2]


@pytest.fixture
def tool(binary: str, address: str) -> Tool:
    """Return a function that runs the tool and returns what it prints."""

    async def run(*arguments: str) -> str:
        process = await asyncio.create_subprocess_exec(
            binary, "-s", f"nats://{address}", *arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        output = (await process.communicate())[0].decode()
        assert process.returncode == 0, output
        return output

    return run


def _registry(url: str) -> NatsRegistry:
    parsed = Url.parse(url)
    return (NatsServicesRegistry if parsed.name == "nats-services" else NatsRegistry).from_url(parsed)


@pytest.mark.parametrize("kind", _KINDS)
async def test_the_tool_lists_describes_counts_and_pings(kind: str, address: str, tool: Tool) -> None:
    """It shows names, address, methods and figures."""
    stats = Stats()
    method = stats.method("/shippy.user.v1.UserService/Get")
    registry = _registry(kind.format(address))
    registry.observe(stats)
    async with registry:
        await registry.register(_USER)
        method.calls, method.seconds = 42, 4.2
        method.fail("NOT_FOUND")
        assert "go_micro_srv_user-1" in await tool("service", "ls")
        info: Any = await tool("service", "info", "go_micro_srv_user")
        for expected in ("go.micro.srv.user", "127.0.0.1:5001", "UserService-Get", "NOT_FOUND", "42"):
            assert expected in info
        assert "42" in await tool("service", "stats", "go_micro_srv_user")
        assert "go_micro_srv_user-1" in await tool("service", "ping", "go_micro_srv_user")


async def test_the_tool_reads_the_bucket_and_what_it_deletes_is_put_back(address: str, tool: Tool) -> None:
    """An operator may look, and can't do lasting harm."""
    key = "service.go/micro/srv/user.go/micro/srv/user-1"
    async with _registry(_KINDS[0].format(address)) as registry:
        await registry.register(_USER)
        assert key in await tool("kv", "ls", "ketch-instances")
        assert json.loads(await tool("kv", "get", "ketch-instances", key, "--raw"))["address"] == _USER.address
        async with aclosing(registry.watch(_USER.service)) as snapshots:
            assert await anext(snapshots) == (_USER,)
            await tool("kv", "del", "ketch-instances", key, "--force")
            async with asyncio.timeout(10):
                assert await anext(snapshots) == ()
                assert await anext(snapshots) == (_USER,)


async def test_a_service_that_the_tool_serves_is_an_instance(address: str, binary: str) -> None:
    """It is found, and gone when it is."""
    serving = await asyncio.create_subprocess_exec(
        binary, "-s", f"nats://{address}", "service", "serve", "Greeter", stdout=subprocess.DEVNULL
    )
    try:
        async with _registry(_KINDS[1].format(address)) as registry, aclosing(registry.watch("Greeter")) as snapshots:
            async with asyncio.timeout(30):
                async for snapshot in snapshots:
                    if snapshot:
                        assert snapshot[0].metadata["transport"] == "nats-micro"
                        break
                serving.kill()
                assert await anext(snapshots) == ()
    finally:
        if serving.returncode is None:
            serving.kill()
        await serving.wait()


if __name__ == "__main__":
    # A process of its own: this one has imported pytest's plugins before pytest could.
    sys.exit(subprocess.run((sys.executable, "-m", "pytest", __file__, "--timeout=300"), check=False).returncode)
