"""From a plugin's name or URL to its class, by entry point. Our own plugins are found the same way as a stranger's.

A package adds a broker with one line of its own metadata:

    [project.entry-points."ketch.brokers"]
    carrier-pigeon = "pigeon.broker:PigeonBroker"
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from .errors import ConfigurationError, MissingExtra, PluginNotFound
from .settings import suggest
from .url import Url

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

#: Entry point group of each kind of plugin.
KINDS = {
    "Broker": "ketch.brokers",
    "Registry": "ketch.registries",
    "Transport": "ketch.transports",
    "Codec": "ketch.codecs",
}


class Plugins:
    """The plugins installed here, read from the packages' metadata once."""

    def __init__(self) -> None:
        found = entry_points()
        self._points = {kind: {p.name: p for p in found.select(group=group)} for kind, group in KINDS.items()}

    def names(self, kind: str) -> list[str]:
        """Return the names of all plugins of a kind (`Broker`, `Registry`, `Transport`, `Codec`)."""
        return sorted(self._points[kind])

    def brokers_that(self, *can: str) -> list[str]:
        """Return the names of the brokers that declare these capabilities and whose driver is installed."""
        found: list[str] = []
        for name in self.names("Broker"):
            try:
                capabilities = self.load("Broker", name).capabilities
            except (MissingExtra, ImportError):
                continue  # a stranger's plugin that is broken is no answer either
            if all(getattr(capabilities, capability) for capability in can):
                found.append(name)
        return found

    def package(self, kind: str, name: str) -> str:
        """Return the package that brings a plugin, with its version."""
        dist = self._points[kind][name].dist
        return f"{dist.name} {dist.version}" if dist is not None else "?"

    def load(self, kind: str, name: str) -> type[Any]:
        """Import a plugin's class.

        Raises:
            PluginNotFound: there is none of that name; the message says which there are.
            MissingExtra: it is there, but what it drives isn't installed; the message has the pip command.
        """
        point = self._points[kind].get(name)
        if point is None:
            names = self.names(kind)
            hint = suggest(name, names) or ";"
            raise PluginNotFound(f"{kind} {name} not found{hint} there are: {', '.join(names)}")
        return _import(kind, point)

    def build(self, kind: str, setting: str, address: str = "") -> Any:
        """Build a plugin from its name or URL and, where that has none, its address.

        Raises:
            ConfigurationError: as `load`, or the URL, its options or the address are wrong.
        """
        url = locate(kind, setting, address)
        return self.load(kind, url.name).from_url(url)


def locate(kind: str, setting: str | Url, address: str) -> Url:
    """Merge a plugin's setting (`nats` or `nats://host?option=1`) with its separate address.

    Raises:
        ConfigurationError: the two name different places.
    """
    url = Url.parse(setting) if isinstance(setting, str) else setting
    if not address:
        return url
    if "://" in address:
        other = Url.parse(address)
        if other.name != url.name:
            raise ConfigurationError(f"{kind} is {url.name}, but its address is of {other.name}: {other}")
        address = other.address
        if other.username or other.options or other.path:
            if url.address or url.options:
                raise ConfigurationError(f"{kind} has two URLs: {url} and {other}; keep one")
            return other
    if url.address and url.address != address:
        raise ConfigurationError(f"{kind} has two addresses: {url.address} and {address}; keep one")
    return Url(url.name, address, url.path, url.username, url.password, url.options)


def _import(kind: str, point: EntryPoint) -> type[Any]:
    try:
        plugin: type[Any] = point.load()
    except ModuleNotFoundError as error:
        package = (point.dist.name if point.dist else None) or "ketch"
        missing = error.name or "?"
        if missing.partition(".")[0] == point.module.partition(".")[0]:
            raise
        raise MissingExtra(
            f"{kind} {point.name} needs the package {missing}: pip install '{package}[{point.name}]'"
        ) from error
    return plugin
