"""Run the registry's suite against Consul itself, built from the Go module github.com/hashicorp/consul.

    python interop/consul.py

The exit code is pytest's. Building it takes some minutes the first time, its cases about two.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pytest
import pytest_asyncio
from peers import KEPT

from ketch.testing.registries import OutageSuite
from ketch.testing.servers import program
from ketch.testing.servers.consul import consul_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from ketch.testing.servers import Server

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


if __name__ == "__main__":
    build()  # before pytest counts the time
    # A process of its own: this one has imported pytest's plugins before pytest could.
    options = ("-p", "no:xdist", "--timeout=120", "--durations=3", *sys.argv[1:])
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    sys.exit(subprocess.run((sys.executable, "-m", "pytest", *options, __file__), env=here, check=False).returncode)
