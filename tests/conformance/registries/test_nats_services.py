"""The registries on NATS that need no JetStream: its services protocol, and go-micro's; against a real server."""

from contextlib import aclosing
from dataclasses import replace

import pytest
import pytest_asyncio

from ketch.registries.nats import NatsRegistry
from ketch.testing.registries import OutageSuite, RegistrySuite
from ketch.testing.servers.nats import nats_server
from ketch.url import Url

pytestmark = pytest.mark.xdist_group("nats-services-registry")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running():
    async with nats_server() as server:
        yield server


class TestNatsServicesRegistry(OutageSuite):
    @pytest_asyncio.fixture
    async def server(self, running):
        return running

    @pytest.fixture
    def url_at(self):
        return lambda address: f"nats-services://{address}?ttl=2&timeout=2&connect_timeout=2"


#: What go-micro's clients go by, which every record of ours says as well.
SAID = {"protocol": "grpc", "server": "grpc", "transport": "grpc", "registry": "nats"}


class AsRegistered(NatsRegistry):
    """Instances without the labels that their records have beside their own."""

    async def watch(self, name=None):
        async with aclosing(super().watch(name)) as snapshots:
            async for snapshot in snapshots:
                yield tuple(self._bare(instance) for instance in snapshot)

    def _bare(self, instance):
        own = {key: value for key, value in instance.metadata.items() if key not in SAID}
        if len(own) > 1:
            own["transport"] = instance.metadata["transport"]  # the suite has set it, with many others
        return replace(instance, metadata=own)


class TestGoMicroRegistry(RegistrySuite):
    @pytest.fixture
    def make(self, running):
        url = f"nats://{running.url.partition('://')[2]}?format=go-micro&services=off&ttl=2&timeout=2"
        return lambda: AsRegistered.from_url(Url.parse(url))
