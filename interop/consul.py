"""Run the registry's suite against Consul itself, built from the Go module github.com/hashicorp/consul.

    python interop/consul.py

The exit code is pytest's. Building it takes some minutes the first time, its cases about two.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pytest
import pytest_asyncio
from peers import KEPT

from ketch.errors import RegistryError
from ketch.plugins import Plugins
from ketch.registry import Instance
from ketch.testing.registries import OutageSuite
from ketch.testing.servers import program
from ketch.testing.servers.consul import consul_server
from ketch.url import Url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from ketch.testing.servers import Server

CASES = Path(__file__).parents[1] / "tests" / "integration" / "test_consul.py"
MODULE = "github.com/hashicorp/consul"


def build() -> str:
    """Build Consul, if it isn't there; return its path."""
    binary = KEPT / "consul"
    if not binary.exists():
        go = program("go", "go.dev/dl", "/usr/local/go/bin")
        flags = ("-trimpath", "-ldflags=-s -w", "-o", str(binary))
        subprocess.run((go, "build", *flags, MODULE), cwd=__file__.removesuffix(".py"), check=True)
    return str(binary)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def consul() -> AsyncIterator[Server]:
    """Run Consul: a server that is a cluster of its own, with a data directory."""
    async with consul_server(program=build()) as server:
        yield server


class TestConsulRegistryAtConsul(OutageSuite):
    """The suite, outages included."""

    patience: ClassVar[float] = 30.0

    @pytest.fixture
    def server(self, consul: Server) -> Server:
        """Return Consul, to be restarted."""
        return consul

    @pytest.fixture
    def url_at(self) -> Callable[[str], str]:
        """Return a function from its address to a URL."""
        return lambda address: f"consul://{address}?ttl=2&timeout=2&wait=2"


_ACL = """
acl {
  enabled = true
  default_policy = "deny"
  tokens { initial_management = "6e2ad5e4-7c4a-4f0e-9d59-1d8f0c6f6a52" }
}
"""


async def test_a_token_is_needed_where_consul_wants_one() -> None:
    """Anonymous requests are refused, or see nobody; the management token may all."""
    instance = Instance("user", "user-1", "127.0.0.1:5001")
    async with consul_server(program=build(), arguments=["-hcl", _ACL]) as server:
        url = Url.parse(f"{server.url}?timeout=2")
        consul = Plugins().load("Registry", "consul")
        async with consul.from_url(url) as stranger:
            with pytest.raises(RegistryError, match="check the token"):
                await stranger.register(instance)
        url = Url.parse(server.url.replace("://", "://:6e2ad5e4-7c4a-4f0e-9d59-1d8f0c6f6a52@"))
        async with consul.from_url(url) as registry, aclosing(registry.watch("user")) as snapshots:
            await registry.register(instance)
            async with asyncio.timeout(30):
                while await anext(snapshots) != (instance,):
                    pass


if __name__ == "__main__":
    build()  # before pytest counts the time
    # A process of its own: this one has imported pytest's plugins before pytest could.
    options = ("--timeout=120", "--durations=3", *sys.argv[1:])
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "KETCH_CONSUL": build()}
    command = (sys.executable, "-m", "pytest", *options, __file__, str(CASES))
    sys.exit(subprocess.run(command, env=here, check=False).returncode)
