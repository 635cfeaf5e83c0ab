"""Every registry that ketch ships passes the suite it ships."""

from uuid import uuid4

import pytest

from ketch.registries.local import LocalRegistry
from ketch.registries.memory import MemoryRegistry
from ketch.registries.static import StaticRegistry
from ketch.testing.registries import RegistrySuite
from ketch.url import Url


class TestMemoryRegistry(RegistrySuite):
    @pytest.fixture
    def make(self):
        url = Url.parse(f"memory://{uuid4().hex}")
        return lambda: MemoryRegistry.from_url(url)


class TestLocalRegistry(RegistrySuite):
    @pytest.fixture
    def make(self, tmp_path):
        url = Url.parse(f"local://{tmp_path}/registry")
        return lambda: LocalRegistry.from_url(url)


class TestStaticRegistry(RegistrySuite):
    shared = False

    @pytest.fixture
    def make(self):
        return lambda: StaticRegistry.from_url(Url.parse("static"))
