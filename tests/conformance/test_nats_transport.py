"""The transport over NATS passes the suite, as requests and over pipes, against a real server."""

import pytest

from ketch.testing.servers import nats_server
from ketch.testing.transports import TransportSuite
from ketch.transports.nats import NatsTransport
from ketch.url import Url

pytestmark = pytest.mark.xdist_group("nats-transport")


@pytest.fixture
async def url():
    async with nats_server() as server:
        yield Url.parse(server.url)


class TestPipes(TransportSuite):
    """Calls without a deadline go over pipes, as streams do."""

    @pytest.fixture
    def make(self, url):
        return lambda: NatsTransport.from_url(url)


class TestRequests(TransportSuite):
    """Unary calls with a deadline are NATS requests."""

    @pytest.fixture
    def make(self, url):
        return lambda: NatsTransport.from_url(url)

    async def call(self, channel, name, body=b"", **options):
        return await super().call(channel, name, body, **{"timeout": 60.0, **options})
