"""Run the broker suite of kafka against Kafka itself, in KRaft mode, from Maven Central; needs Java and Maven.

    python interop/kafka.py

The exit code is pytest's. It takes about five minutes.
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

from ketch.testing.brokers import BrokerSuite
from ketch.testing.servers import kafka_server, program

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ketch.testing.servers import Server


@pytest.fixture(scope="module")
def jars() -> str:
    """Bring Kafka's jars; return their folder."""
    folder = KEPT / "kafka"
    if not any(folder.glob("kafka_*.jar")):
        maven = program("mvn", "apt install maven")
        command = (maven, "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={folder}")
        subprocess.run(command, cwd=__file__.removesuffix(".py"), check=True)
    return str(folder)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kafka(jars: str) -> AsyncIterator[Server]:
    """Run Kafka."""
    async with kafka_server(jars) as server:
        yield server


class TestKafkaBrokerAtKafka(BrokerSuite):
    """The suite, outages included."""

    many: ClassVar[int] = 2_000
    patience: ClassVar[float] = 45.0

    @pytest.fixture
    def server(self, kafka: Server) -> Server:
        """Return Kafka, to be killed and started again."""
        return kafka

    @pytest.fixture
    def url(self, kafka: Server) -> str:
        """Return its URL."""
        return f"{kafka.url}?timeout=5&partitions=4"


if __name__ == "__main__":
    # A process of its own: this one has imported pytest's plugins before pytest could.
    options = ("-p", "no:xdist", "--timeout=120", "--durations=3", *sys.argv[1:])
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    sys.exit(subprocess.run((sys.executable, "-m", "pytest", *options, __file__), env=here, check=False).returncode)
