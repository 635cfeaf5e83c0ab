"""The registries on NATS that need no JetStream: its services protocol, and go-micro's; against a real server."""

from contextlib import aclosing
from dataclasses import replace

import pytest
import pytest_asyncio

from ketch.registries.nats import NatsRegistry
from ketch.testing.registries import OutageSuite
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
        added = SAID if instance.metadata == SAID else SAID.keys() - {"transport"}  # which the suite sets with others
        return replace(
            instance, metadata={key: instance.metadata[key] for key in instance.metadata.keys() - set(added)}
        )


class TestGoMicroRegistry(OutageSuite):
    @pytest_asyncio.fixture
    async def server(self, running):
        return running

    @pytest.fixture
    def url_at(self):
        return lambda address: f"nats://{address}?format=go-micro&services=off&ttl=2&timeout=2&connect_timeout=2"

    @pytest.fixture
    def at(self, url_at):
        return lambda address: AsRegistered.from_url(Url.parse(url_at(address)))
