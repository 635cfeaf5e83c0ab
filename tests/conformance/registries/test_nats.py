"""The registry in a bucket of NATS's KV, against a real server."""

from uuid import uuid4

import pytest
import pytest_asyncio

from ketch.testing.registries import OutageSuite
from ketch.testing.servers.nats import nats_server

pytestmark = pytest.mark.xdist_group("nats-registry")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running():
    async with nats_server(jetstream=True) as server:
        yield server


class TestNatsRegistry(OutageSuite):
    @pytest_asyncio.fixture
    async def server(self, running):
        return running

    @pytest.fixture
    def url_at(self):
        bucket = f"test-{uuid4().hex[:12]}"
        return lambda address: f"nats://{address}?bucket={bucket}&ttl=2&timeout=2&connect_timeout=2"
