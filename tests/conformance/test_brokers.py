"""Every broker that ketch ships passes the suite it ships; NATS against a real server."""

from uuid import uuid4

import pytest
import pytest_asyncio

from ketch.testing.brokers import BrokerSuite
from ketch.testing.servers import nats_server


class TestMemoryBroker(BrokerSuite):
    processes = False

    @pytest.fixture
    def url(self):
        return f"memory://{uuid4().hex}"


class TestDirectBroker(BrokerSuite):
    transport = "grpc"

    @pytest.fixture
    def url(self):
        return "direct"


class TestDirectBrokerInMemory(BrokerSuite):
    @pytest.fixture
    def url(self):
        return "direct"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def nats():
    async with nats_server() as server:
        yield server


class TestNatsBroker(BrokerSuite):
    @pytest.fixture
    def server(self, nats):
        return nats

    @pytest.fixture
    def url(self, nats):
        return f"{nats.url}?timeout=1"


class TestNatsBrokerWithTheEnvelopeOfGoMicro(BrokerSuite):
    @pytest.fixture
    def url(self, nats):
        return f"{nats.url}?envelope=go-micro"
