"""What every broker must do, as tests.

A plugin's author subclasses `BrokerSuite` in a test module:

    class TestPigeon(BrokerSuite):
        @pytest.fixture
        def url(self) -> str:
            return "pigeon://roof"

Cases that need what the plugin's `capabilities` don't declare are skipped and say so. With a fixture `server`, whose
server is killed and started again, the cases of outages are run too.
It needs pytest and pytest-asyncio: `pip install 'ketch[testing]'`.
"""

from .arriving import Arriving
from .closing import Closing
from .declaring import Declaring
from .loading import Loading
from .redelivering import Redelivering
from .sharing import Sharing
from .stage import Stage
from .surviving import Surviving
from .timing import Timing

__all__ = [
    "Arriving",
    "BrokerSuite",
    "Closing",
    "Declaring",
    "Loading",
    "Redelivering",
    "Sharing",
    "Stage",
    "Surviving",
    "Timing",
]


class BrokerSuite(Arriving, Sharing, Loading, Closing, Declaring, Redelivering, Timing, Surviving):
    """The promises of `ketch.broker.Broker`.

    Attributes and fixtures to set are those of `Cases`.
    """
