"""STOMP against a real ActiveMQ."""

import os

import pytest
import pytest_asyncio

from ketch.testing.brokers import BrokerSuite
from ketch.testing.servers import activemq_server

pytestmark = pytest.mark.xdist_group("stomp")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def activemq():
    try:
        # What a killed process has written is there though it wasn't forced to the disk.
        async with activemq_server(sync=False) as server:
            yield server
    except RuntimeError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error), allow_module_level=False)


class TestStompBroker(BrokerSuite):
    many = 1_000

    @pytest.fixture
    def server(self, activemq):
        return activemq

    @pytest.fixture
    def url(self, activemq):
        return f"{activemq.url}?scheduler=1&timeout=3"
