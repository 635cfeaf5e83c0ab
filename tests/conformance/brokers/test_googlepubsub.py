"""googlepubsub passes the suite, against a small server of our own; interop/pubsub.py runs it against Google's fake."""

import os
from typing import ClassVar

import pytest
import pytest_asyncio

from ketch.testing.brokers import BrokerSuite
from ketch.testing.servers.googlepubsub import googlepubsub_server

pytestmark = pytest.mark.xdist_group("googlepubsub")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pubsub():
    try:
        async with googlepubsub_server() as server:
            yield server
    except RuntimeError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


class TestGooglePubSubBroker(BrokerSuite):
    many: ClassVar[int] = 2_000
    hold: ClassVar[float] = 1.5

    @pytest.fixture
    def server(self, pubsub):
        return pubsub

    @pytest.fixture
    def url(self, pubsub):
        return f"{pubsub.url}/suite?timeout=2&ack_deadline=1"
