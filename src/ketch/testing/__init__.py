"""The testing kit: `run`, and the suites that every plugin must pass.

The suites (`ketch.testing.brokers`, `.registries`, `.transports`) need the extra `ketch[testing]`.
"""

from .runner import App, Watch, run

__all__ = ["App", "Watch", "run"]
