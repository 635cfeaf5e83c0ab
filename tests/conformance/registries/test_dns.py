"""The registry `dns`, against Knot DNS. What is registered stays with the object; integration has the rest."""

import os

import pytest
import pytest_asyncio

from ketch.registries.dns import DnsRegistry
from ketch.testing.registries import RegistrySuite
from ketch.testing.servers.knot import knot_server
from ketch.url import Url

pytestmark = [pytest.mark.xdist_group("knot"), pytest.mark.asyncio(loop_scope="function")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def knot():
    try:
        async with knot_server() as server:
            yield server
    except RuntimeError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


class TestDnsRegistry(RegistrySuite):
    shared = False

    @pytest.fixture
    def make(self, knot):
        return lambda: DnsRegistry.from_url(Url.parse(f"{knot.url}?domain=shop.test&port=5001&timeout=1&min=0.2"))
