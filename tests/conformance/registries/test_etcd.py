"""The etcd registry passes the suite, with outages, against a real server."""

import os

import pytest
import pytest_asyncio

from ketch.testing.registries import OutageSuite
from ketch.testing.servers import etcd_server

pytestmark = pytest.mark.xdist_group("etcd")

prefixes = iter(range(1_000_000))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def etcd():
    try:
        async with etcd_server() as server:
            yield server
    except RuntimeError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error), allow_module_level=False)


class TestEtcdRegistry(OutageSuite):
    @pytest.fixture
    def server(self, etcd):
        return etcd

    @pytest.fixture
    def url_at(self):
        prefix = f"/test-{next(prefixes)}"
        return lambda address: f"etcd://{address}?prefix={prefix}&ttl=2&timeout=1.5"
