"""Registry: who serves what, and where."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Final, Self

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping
    from types import TracebackType

    from .stats import Stats
    from .url import Url

#: The label that says which host an instance runs on.
HOST: Final = "host"


@dataclass(frozen=True, slots=True)
class Instance:
    """One running process of a service, as others find it.

    Attributes:
        service: the service's name, such as `go.micro.srv.user`.
        id: unique among all instances.
        address: where its transport listens: `host:port`, `[::1]:port` or `unix:/path`.
        version: the service's version.
        contracts: full names of the protobuf services it serves, such as `shippy.user.v1.UserService`.
        metadata: labels; what selectors and brokers read (`transport`, `group`, …).
    """

    service: str
    id: str
    address: str
    version: str = "latest"
    contracts: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)

    def answers_to(self, name: str) -> bool:
        """Tell whether this instance is of the service called `name`, or serves the contract called so."""
        return name == self.service or name in self.contracts


class Registry(ABC):
    """Finds instances by the name of their service or of a contract that they serve.

    What every registry guarantees:

    - An instance is seen by other processes soon after `register` returns and no more soon after `deregister`
      returns or its process has died; how soon is `lag`.
    - Registering an id again replaces its record. Deregistering what isn't there is no error.
    - Two services may share one name: each instance is one record, told apart by its id.
    - When the backend is away, watchers keep what they knew and go on by themselves when it is back.

    Use it as an async context manager; leaving it deregisters whatever it has registered.
    """

    #: The plugin's name, as in its entry point.
    name: ClassVar[str]
    #: Seconds within which other processes see a change, by design; suites and docs use it.
    lag: float = 0.0

    @classmethod
    @abstractmethod
    def from_url(cls, url: Url) -> Self:
        """Build it from `name://address?options`, without any IO.

        Raises:
            ConfigurationError: an option is unknown or wrong.
        """

    @abstractmethod
    async def register(self, instance: Instance) -> None:
        """Make the instance known, and keep it known until `deregister` or until this process ends.

        Raises:
            RegistryError: the registry can't be written.
        """

    @abstractmethod
    async def deregister(self, instance: Instance) -> None:
        """Take the instance's record away.

        Raises:
            RegistryError: the registry can't be written.
        """

    @abstractmethod
    def watch(self, name: str | None = None) -> AsyncGenerator[tuple[Instance, ...], None]:
        """Yield all instances that answer to `name` (all there are, for None): at once, then after each change.

        The order within a snapshot is stable. Changes between two steps of a slow reader are merged: it always
        gets the latest. Close the generator (`aclose`) to stop watching.

        Raises:
            RegistryError: the first snapshot can't be read. Later failures are logged and outlived.
        """

    def observe(self, stats: Stats) -> None:  # noqa: B027 - optional to implement
        """Be given what is served here and how often, before `register`. By default it isn't used.

        For a registry that publishes figures, such as NATS's services protocol. `stats` lives on: read it when
        it is asked for.
        """

    async def open(self) -> None:  # noqa: B027 - optional to implement
        """Connect to the backend, where there is one.

        Raises:
            RegistryError: it can't be reached, or isn't usable.
        """

    async def close(self) -> None:  # noqa: B027 - optional to implement
        """Deregister what is still registered and let go of the backend. Closing twice is no error."""

    @property
    def location(self) -> str:
        """Where it is, for the line at start; never a secret."""
        return ""

    @property
    def trouble(self) -> str:
        """Why it is out of touch with its backend just now, so that what it says may be old; "" when it isn't."""
        return ""

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
