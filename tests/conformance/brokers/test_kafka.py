"""Kafka passes the suite: all of it against Kafka itself (`make interop`), what is bearable against Tansu from a wheel.

Tansu lets each member of a group wait five seconds and more, and forgets everything when it is killed.
"""

import os

import pytest
import pytest_asyncio

from ketch.testing.brokers import BrokerSuite
from ketch.testing.servers import kafka_server

pytestmark = pytest.mark.xdist_group("kafka")

JARS = os.environ.get("KETCH_TEST_KAFKA_JARS", "")

#: Cases of groups that are run against Tansu too: one of each kind.
GROUPS = (
    "test_what_was_given_back_comes_again",
    "test_what_a_member_leaves_unsettled_goes_to_another",
    "test_events_wait_for_a_group_that_was_declared",
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kafka():
    async with kafka_server(JARS) as server:
        yield server


@pytest.fixture(autouse=True)
def bearable(request):
    """Skip the cases of groups that Tansu would take minutes for."""
    name = request.node.originalname
    if not JARS and ("group" in CASES_WITH_GROUPS.get(name, "")) and name not in GROUPS:
        pytest.skip("Tansu lets members of a group wait; Kafka itself is asked by `make interop`")


CASES_WITH_GROUPS = {}


class TestKafkaBroker(BrokerSuite):
    many = 2_000
    patience = 30.0

    @pytest.fixture
    def server(self, kafka):
        return kafka if JARS else None

    @pytest.fixture
    def url(self, kafka):
        return f"{kafka.url}?timeout=5&partitions=4"
