"""The static registry: fixed addresses, for programs that are told where everything is.

    static://?go.micro.srv.user=127.0.0.1:5001,127.0.0.1:5002&go.micro.srv.email=127.0.0.1:5003
    static:///etc/ketch/instances.json

The file is a JSON list of records as in `record`; it is read once, when the registry is opened.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Self

from ..errors import ConfigurationError, NotRunning, RegistryError
from ..registry import Instance, Registry
from .feed import Feed
from .record import decode, decode_list, encode

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from ..url import Url

_EXAMPLE = "static://?name=host:port,host:port&… or static:///path/to/file.json"
_MAX_FILE = 16 * 1024 * 1024


class StaticRegistry(Registry):
    """Instances that are there from the start and never checked.

    What is registered here is seen by this object only, so that a service which uses it starts as ever.

    Args:
        instances: the fixed ones.
        file: a file with further ones.
    """

    name = "static"

    def __init__(self, instances: Sequence[Instance] = (), *, file: Path | None = None) -> None:
        self._fixed = {instance.id: instance for instance in instances}
        self._file = file
        self._instances: dict[str, Instance] = {}
        self._feed: Feed | None = None

    @classmethod
    def from_url(cls, url: Url) -> Self:
        """Build it from names and addresses, or from the path of a file."""
        if url.address or (url.path and url.options):
            raise ConfigurationError(f"the static registry is written {_EXAMPLE}, not {url}")
        if url.path:
            return cls(file=Path("/", url.path))
        options = url.options.items()
        pairs = [(name, address.strip()) for name, text in options for address in text.split(",")]
        for name, address in pairs:
            if not name or not address:
                raise ConfigurationError(f"static registry: {name!r} needs addresses: {_EXAMPLE}")
        return cls([Instance(name, f"{name}@{address}", address) for name, address in pairs])

    async def open(self) -> None:
        """Read the file, if there is one. Opening twice is no error."""
        if self._feed is None:
            self._instances = dict(self._fixed)
            if self._file is not None:
                self._instances.update({instance.id: instance for instance in _read(self._file)})
            self._feed = Feed()
            self._feed.publish(self._instances.values())

    async def close(self) -> None:
        """Forget what was registered here; end the watches."""
        feed, self._feed = self._feed, None
        if feed is not None:
            feed.end()

    async def register(self, instance: Instance) -> None:
        """Make the instance known to this object."""
        feed = self._opened()
        self._instances[instance.id] = decode(encode(instance))
        feed.publish(self._instances.values())

    async def deregister(self, instance: Instance) -> None:
        """Forget the instance."""
        feed = self._opened()
        self._instances.pop(instance.id, None)
        feed.publish(self._instances.values())

    def watch(self, name: str | None = None) -> AsyncGenerator[tuple[Instance, ...], None]:
        """Yield snapshots until the registry is closed."""
        return self._opened().watch(name)

    @property
    def location(self) -> str:
        """The file, or the names that have addresses."""
        return str(self._file or ", ".join(sorted({instance.service for instance in self._fixed.values()})))

    def _opened(self) -> Feed:
        if self._feed is None:
            raise NotRunning("the static registry isn't open; use it as `async with registry:`")
        return self._feed


def _read(file: Path) -> list[Instance]:
    try:
        with file.open("rb") as opened:
            data = opened.read(_MAX_FILE + 1)
    except OSError as error:
        raise RegistryError(f"static registry: {file} can't be read: {error.strerror}") from error
    if len(data) > _MAX_FILE:
        raise RegistryError(f"static registry: {file} is over {_MAX_FILE} bytes")
    try:
        return decode_list(data)
    except RegistryError as error:
        raise RegistryError(f"static registry: {file}: {error}") from error
