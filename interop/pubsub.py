"""Run the broker suite of googlepubsub against Google's own fake, the Go module cloud.google.com/go/pubsub/v2/pstest.

    python interop/pubsub.py

The exit code is pytest's. It takes about four minutes: the fake's deadlines are 10 s at least, and it sends one event
in 10 ms.
"""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, ClassVar

import pytest
import pytest_asyncio

from ketch.testing.brokers import BrokerSuite
from ketch.testing.servers import program
from ketch.testing.servers.googlepubsub import googlepubsub_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ketch.testing.servers import Server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pubsub(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """Build the fake and run it."""
    binary = tmp_path_factory.mktemp("pubsub") / "pstest"
    go = program("go", "go.dev/dl", "/usr/local/go/bin")
    here = __file__.removesuffix(".py")
    subprocess.run((go, "build", "-o", str(binary), "."), cwd=here, check=True)  # noqa: ASYNC221 - nothing else runs
    async with googlepubsub_server(command=[str(binary)]) as server:
        yield server


class TestGooglePubSubAtGooglesFake(BrokerSuite):
    """The suite; without outages, since the fake forgets everything."""

    many: ClassVar[int] = 2_000
    hold: ClassVar[float] = 12.0
    patience: ClassVar[float] = 60.0

    @pytest.fixture
    def url(self, pubsub: Server) -> str:
        """Return the fake's URL."""
        return f"{pubsub.url}/suite?ack_deadline=10"


#: Cases whose words don't fit the fake: it sends each event in an answer of its own, and to each subscription at a time
#: of its own, so that what one has got says nothing of another.
UNFIT = "messages_that_are_there_come_in_batches or what_was_taken_can_be_received_after_stop"

if __name__ == "__main__":
    # A process of its own: this one has imported pytest's plugins before pytest could.
    command = (sys.executable, "-m", "pytest", __file__, "--timeout=120", "--durations=3", "-k", f"not ({UNFIT})")
    sys.exit(subprocess.run(command, check=False).returncode)
