"""MQTT at both of its promises, against a real Mosquitto."""

import os

import pytest
import pytest_asyncio

from ketch.testing.brokers import BrokerSuite
from ketch.testing.servers import mosquitto_server

pytestmark = pytest.mark.xdist_group("mqtt")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mosquitto():
    try:
        async with mosquitto_server() as server:
            yield server
    except RuntimeError as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(error), allow_module_level=False)


class TestMqttBroker(BrokerSuite):
    many = 2_000

    @pytest.fixture
    def server(self, mosquitto):
        return mosquitto

    @pytest.fixture
    def url(self, mosquitto):
        return f"{mosquitto.url}?timeout=2"


class TestMqttBrokerAtMostOnce(BrokerSuite):
    many = 2_000

    @pytest.fixture
    def server(self, mosquitto):
        return mosquitto

    @pytest.fixture
    def url(self, mosquitto):
        return f"{mosquitto.url}?qos=0&timeout=2"
