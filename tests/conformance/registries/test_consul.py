"""The registry `consul`, against our own small agent; `make interop` runs the same against the real Consul."""

import pytest
import pytest_asyncio

from ketch.testing.registries import OutageSuite
from ketch.testing.servers.consul import consul_server

pytestmark = [pytest.mark.xdist_group("consul"), pytest.mark.asyncio(loop_scope="function")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def consul():
    async with consul_server() as server:
        yield server


class TestConsulRegistry(OutageSuite):
    lifetime = 1.5

    @pytest.fixture
    def server(self, consul):
        return consul

    @pytest.fixture
    def url_at(self):
        return lambda address: f"consul://{address}?ttl=1.5&timeout=1&wait=2"
