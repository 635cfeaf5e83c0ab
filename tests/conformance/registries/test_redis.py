"""The Redis registry passes the suite, with outages, against a real server."""

import os

import pytest
import pytest_asyncio

from ketch.testing.registries import OutageSuite
from ketch.testing.servers import redis_server

pytestmark = pytest.mark.xdist_group("redis-registry")

prefixes = iter(range(1_000_000))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def redis():
    try:
        async with redis_server(keeps=False) as server:
            yield server
    except RuntimeError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error), allow_module_level=False)


class TestRedisRegistry(OutageSuite):
    @pytest.fixture
    def server(self, redis):
        return redis

    @pytest.fixture
    def url_at(self):
        prefix = f"test-{next(prefixes)}"
        return lambda address: f"redis://{address}?prefix={prefix}&ttl=2&timeout=1"
