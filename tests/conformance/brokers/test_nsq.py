"""nsq passes the suite, against a small nsqd of our own; interop/nsq.py runs it against the real one."""

from typing import ClassVar

import pytest
import pytest_asyncio

from ketch.testing.brokers import BrokerSuite
from ketch.testing.servers.nsq import nsq_server

pytestmark = pytest.mark.xdist_group("nsq")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def nsq():
    async with nsq_server() as server:
        yield server


class TestNsqBroker(BrokerSuite):
    many: ClassVar[int] = 4_000
    hold: ClassVar[float] = 1.5

    @pytest.fixture
    def server(self, nsq):
        return nsq

    @pytest.fixture
    def url(self, nsq):
        return f"{nsq.url}?timeout=2&msg_timeout=1"
