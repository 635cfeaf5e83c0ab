"""Redis pub/sub passes the suite, against a real server."""

import os

import pytest
import pytest_asyncio

from ketch.testing.brokers import BrokerSuite
from ketch.testing.servers import redis_server

pytestmark = pytest.mark.xdist_group("redis")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def redis():
    try:
        async with redis_server() as server:
            yield server
    except RuntimeError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error), allow_module_level=False)


class TestRedisBroker(BrokerSuite):
    @pytest.fixture
    def server(self, redis):
        return redis

    @pytest.fixture
    def url(self, redis):
        return f"{redis.url}?timeout=1"
