"""RabbitMQ passes the suite, against a real server."""

import os
from typing import ClassVar

import pytest
import pytest_asyncio

from ketch.testing.brokers import BrokerSuite
from ketch.testing.servers import rabbitmq_server

pytestmark = pytest.mark.xdist_group("rabbitmq")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rabbitmq():
    try:
        running = rabbitmq_server()
        server = await running.__aenter__()
    except RuntimeError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error), allow_module_level=False)
    yield server
    await running.__aexit__(None, None, None)


class TestRabbitMQBroker(BrokerSuite):
    many: ClassVar[int] = 2_000
    patience: ClassVar[float] = 40.0  # the server takes its time to start

    @pytest.fixture
    def server(self, rabbitmq):
        return rabbitmq

    @pytest.fixture
    def url(self, rabbitmq):
        return f"{rabbitmq.url}?timeout=3"
