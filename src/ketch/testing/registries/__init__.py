"""What every registry must do, as tests.

A plugin's author subclasses `RegistrySuite` in a test module:

    class TestMyRegistry(RegistrySuite):
        @pytest.fixture
        def make(self) -> Callable[[], Registry]:
            return lambda: MyRegistry.from_url(Url.parse("my://127.0.0.1:1234?prefix=test"))

and `OutageSuite` as well, where the registry is a server of its own. They need pytest and pytest-asyncio:
`pip install 'ketch[testing]'`.
"""

from .outages import OutageSuite as OutageSuite
from .suite import RegistrySuite as RegistrySuite
