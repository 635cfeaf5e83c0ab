"""Redis Streams pass the suite, against a real server."""

import os
from typing import ClassVar

import pytest
import pytest_asyncio

from ketch.testing.brokers import BrokerSuite
from ketch.testing.servers import redis_server

pytestmark = pytest.mark.xdist_group("redis-streams")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def redis():
    try:
        async with redis_server(scheme="redis-streams") as server:
            yield server
    except RuntimeError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error), allow_module_level=False)


class TestRedisStreamsBroker(BrokerSuite):
    many: ClassVar[int] = 2_000
    hold: ClassVar[float] = 1.5

    @pytest.fixture
    def server(self, redis):
        return redis

    @pytest.fixture
    def url(self, redis):
        return f"{redis.url}?timeout=1&claim_after=1"
