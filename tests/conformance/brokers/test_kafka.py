"""Kafka, against a broker of its protocol from a wheel; `make interop` runs the whole suite against Kafka itself.

The one from the wheel, Tansu, lets each member of a group wait for five seconds and more, and forgets everything when
it is killed. So only one of each kind of the cases with groups is run here.
"""

import contextlib
import os
from typing import ClassVar

import pytest
import pytest_asyncio

from ketch.testing.brokers import Arriving, Declaring, Redelivering, Sharing, Timing
from ketch.testing.servers import kafka_server

pytestmark = pytest.mark.xdist_group("kafka")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kafka():
    async with contextlib.AsyncExitStack() as stack:
        try:
            server = await stack.enter_async_context(kafka_server())
        except RuntimeError as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(str(error), allow_module_level=False)
        yield server


class TestKafkaBroker(Arriving, Declaring):
    many: ClassVar[int] = 2_000
    patience: ClassVar[float] = 40.0

    test_what_was_given_back_comes_again = Redelivering.test_what_was_given_back_comes_again
    test_some_of_a_batch_may_be_given_back = Redelivering.test_some_of_a_batch_may_be_given_back
    test_without_a_group_everyone_gets_everything = Sharing.test_without_a_group_everyone_gets_everything
    test_events_wait_for_a_group_that_was_declared = Timing.test_events_wait_for_a_group_that_was_declared
    test_a_subscription_may_start_at_the_beginning = Timing.test_a_subscription_may_start_at_the_beginning
    test_the_key_of_an_event_arrives = Timing.test_the_key_of_an_event_arrives

    @pytest.fixture
    def url(self, kafka):
        return f"{kafka.url}?timeout=5&partitions=4"
