"""Run the broker suite of kafka against Kafka itself, in KRaft mode, from Maven Central; needs Java and Maven.

    python interop/kafka.py

The exit code is pytest's. It takes about five minutes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import pytest
import pytest_asyncio
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from peers import KEPT

from ketch.errors import BrokerError
from ketch.testing.brokers import BrokerSuite
from ketch.testing.servers import kafka_server, program
from ketch.url import Url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from ketch.broker import Broker
    from ketch.testing.brokers import Stage
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

    async def test_partitions_that_are_added_are_read_too(self, stage: Stage, there: Broker, url: str) -> None:
        """By a group and without one, from their beginning."""
        subscriptions = [await there.subscribe(stage.topic, group=group) for group in (None, "g")]
        async with administering(url) as admin, publishing(url) as plain:
            await admin.create_partitions({stage.topic: NewPartitions(5)})
            async with asyncio.timeout(20):
                while len(await plain.partitions_for(stage.topic)) < 5:
                    await plain.client.force_metadata_update()
            await plain.send_and_wait(stage.topic, b"x", partition=4)
        for subscription in subscriptions:
            assert await stage.bodies(subscription, 1) == [b"x"]

    async def test_a_group_begins_at_the_beginning_of_partitions_that_were_added_while_it_was_away(
        self, stage: Stage, there: Broker, url: str
    ) -> None:
        """They hold what was published for it."""
        await there.declare(stage.topic, group="g")
        async with administering(url) as admin, publishing(url) as plain:
            await admin.create_partitions({stage.topic: NewPartitions(5)})
            async with asyncio.timeout(20):
                while len(await plain.partitions_for(stage.topic)) < 5:
                    await plain.client.force_metadata_update()
            await plain.send_and_wait(stage.topic, b"x", partition=4)
        subscription = await there.subscribe(stage.topic, group="g")
        assert await stage.bodies(subscription, 1) == [b"x"]

    async def test_a_topic_that_was_made_anew_is_heard_from_its_first_event_on(
        self, stage: Stage, here: Broker, there: Broker, url: str
    ) -> None:
        """Its offsets are those of events that were handled before."""
        subscriptions = [await there.subscribe(stage.topic, group=group) for group in (None, "g")]
        old = [b"old %d" % number for number in range(40)]
        await stage.publish(here, old)
        for subscription in subscriptions:
            assert sorted(await stage.bodies(subscription, 40)) == sorted(old)
        async with administering(url) as admin:
            await admin.delete_topics([stage.topic])
            async with asyncio.timeout(20):
                while (await admin.create_topics([NewTopic(stage.topic, 4, 1)])).topic_errors[0][1]:  # noqa: ASYNC110 - deleting takes its time
                    await asyncio.sleep(0.1)
        new = [b"new %d" % number for number in range(4)]
        async with asyncio.timeout(20):
            for body in new:
                while True:
                    with contextlib.suppress(BrokerError):
                        await stage.publish(here, [body])
                        break
        for subscription in subscriptions:
            assert sorted(await stage.bodies(subscription, 4)) == sorted(new)


@asynccontextmanager
async def administering(url: str) -> AsyncIterator[AIOKafkaAdminClient]:
    """Give a plain client that administers."""
    admin = AIOKafkaAdminClient(bootstrap_servers=Url.parse(url).address)
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


@asynccontextmanager
async def publishing(url: str) -> AsyncIterator[AIOKafkaProducer]:
    """Give a plain client that publishes."""
    producer = AIOKafkaProducer(bootstrap_servers=Url.parse(url).address)
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


if __name__ == "__main__":
    # A process of its own: this one has imported pytest's plugins before pytest could.
    options = ("-p", "no:xdist", "--timeout=120", "--durations=3", *sys.argv[1:])
    here = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    sys.exit(subprocess.run((sys.executable, "-m", "pytest", *options, __file__), env=here, check=False).returncode)
