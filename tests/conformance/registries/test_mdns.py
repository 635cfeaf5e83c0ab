"""The registry over multicast DNS passes the suite, on loopback and a port of its own."""

import socket

import pytest

from ketch.registries.mdns import MdnsRegistry
from ketch.testing.registries import RegistrySuite
from ketch.url import Url

pytestmark = pytest.mark.xdist_group("mdns")


@pytest.fixture
def port():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class TestMdnsRegistry(RegistrySuite):
    @pytest.fixture
    def make(self, port):
        url = Url.parse(f"mdns://?interface=127.0.0.1&port={port}&ttl=3")
        return lambda: MdnsRegistry.from_url(url)
