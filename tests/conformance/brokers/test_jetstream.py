"""JetStream passes the suite, against a real server that keeps its files when it is killed."""

import pytest
import pytest_asyncio

from ketch.testing.brokers import BrokerSuite
from ketch.testing.servers import nats_server

pytestmark = pytest.mark.xdist_group("jetstream")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def jetstream():
    async with nats_server(jetstream=True) as server:
        yield server


class TestJetStreamBroker(BrokerSuite):
    hold = 2.5

    @pytest.fixture
    def server(self, jetstream):
        return jetstream

    @pytest.fixture
    def url(self, jetstream):
        return f"{jetstream.url}?timeout=2&ack_wait=1"
