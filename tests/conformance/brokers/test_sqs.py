"""SQS and SNS, against moto's server."""

import os

import pytest
import pytest_asyncio

from ketch.testing.brokers import BrokerSuite
from ketch.testing.servers.moto import moto_server

pytestmark = pytest.mark.xdist_group("sqs")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def moto():
    try:
        async with moto_server() as server:
            yield server
    except RuntimeError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error), allow_module_level=False)


class TestSqsBroker(BrokerSuite):
    remembers = False
    many = 100  # moto makes about a hundred calls a second; test_sqs.py has a burst of a thousand

    @pytest.fixture
    def server(self, moto):
        return moto

    @pytest.fixture
    def url(self, moto):
        return f"{moto.url}&visibility=5&wait=1"
