"""Run the broker suite of nsq against the real nsqd, built from the Go module github.com/nsqio/nsq.

    python interop/nsq.py

The exit code is pytest's. It takes about a minute and a half.
"""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, ClassVar

import pytest
import pytest_asyncio
import trustme

from ketch.broker import Outcome, Site
from ketch.brokers.nsq import NsqBroker
from ketch.errors import BrokerError
from ketch.message import Message
from ketch.registries.memory import MemoryRegistry
from ketch.testing.brokers import BrokerSuite
from ketch.testing.servers import program
from ketch.testing.servers.nsq import nsq_server
from ketch.transports.memory import MemoryTransport
from ketch.url import Url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from ketch.testing.servers import Server


@pytest.fixture(scope="module")
def nsqd(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Build nsqd; return its path."""
    binary = str(tmp_path_factory.mktemp("nsq") / "nsqd")
    go = program("go", "go.dev/dl", "/usr/local/go/bin")
    subprocess.run((go, "build", "-o", binary, "."), cwd=__file__.removesuffix(".py"), check=True)
    return binary


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def nsq(nsqd: str) -> AsyncIterator[Server]:
    """Run nsqd."""
    async with nsq_server(command=[nsqd]) as server:
        yield server


class TestNsqBrokerAtTheRealNsqd(BrokerSuite):
    """The suite; restarts are orderly, since nsqd loses what is in its memory when it is killed."""

    hold: ClassVar[float] = 1.5

    @pytest.fixture
    def server(self, nsq: Server) -> Server:
        """Return nsqd, to be restarted."""
        return nsq

    @pytest.fixture
    def url(self, nsq: Server) -> str:
        """Return its URL."""
        return f"{nsq.url}?timeout=2&msg_timeout=1"


async def test_events_go_over_tls_and_a_stranger_is_refused(nsqd: str, tmp_path: Path) -> None:
    """Nsqd goes over to TLS in the middle of the handshake, when both sides want it."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    cert, key, root = (str(tmp_path / name) for name in ("cert.pem", "key.pem", "root.pem"))
    issued.private_key_pem.write_to_path(key)
    issued.cert_chain_pems[0].write_to_path(cert)
    authority.cert_pem.write_to_path(root)
    site = Site("interop", "1", MemoryRegistry.from_url(Url("memory")), MemoryTransport.from_url(Url("memory")))
    async with nsq_server(command=[nsqd, f"--tls-cert={cert}", f"--tls-key={key}"]) as server:
        broker = NsqBroker.from_url(Url.parse(f"{server.url}?tls_ca={root}"))
        await broker.open(site)
        subscription = await broker.subscribe("orders", group="g")
        await broker.publish(Message("orders", {"x-tenant": "bbc"}, bytes(500_000)))
        (delivery,) = await subscription.receive()
        assert (delivery.message.headers["x-tenant"], len(delivery.message.body)) == ("bbc", 500_000)
        await subscription.settle([(delivery, Outcome.DONE)])
        await broker.close()
        with pytest.raises(BrokerError, match="certificate"):
            await NsqBroker.from_url(Url.parse(f"{server.url}?tls=true")).open(site)


if __name__ == "__main__":
    # A process of its own: this one has imported pytest's plugins before pytest could.
    sys.exit(subprocess.run((sys.executable, "-m", "pytest", __file__, "--durations=3"), check=False).returncode)
