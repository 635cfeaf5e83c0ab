"""The broker `http` passes the suite; its peers are of its own kind here, interop/gomicro.py has go-micro's."""

import pytest

from ketch.testing.brokers import BrokerSuite


class TestHttpBroker(BrokerSuite):
    @pytest.fixture
    def url(self):
        return "http"
