"""Options: what a program runs with, built from its settings. Nothing is connected yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from socket import gethostname
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from . import policyfile
from .broker import Broker, Site
from .codec import Codecs
from .errors import ConfigurationError
from .plugins import Plugins, locate
from .policy import Policies
from .registry import HOST, Registry
from .selecting import SELECTORS, find
from .settings import KNOWN, Settings, suggest
from .tls import OPTIONS as TLS_OPTIONS
from .tls import Tls
from .transport import Transport
from .url import Url

if TYPE_CHECKING:
    from collections.abc import Callable
    from socket import socket

    from .selector import SelectorMaker


@dataclass(frozen=True, slots=True)
class Options:
    """A program's configuration and its plugins; take them from here, never from a global.

    Attributes:
        name, version, id: the service and this instance of it.
        address, advertise: what the server listens on, and what others are told ("" for the same).
        metadata: labels of this instance.
        broker, registry, transport, codecs, selector: the configured plugins, ready to connect.
        policies: how calls are made: what code says over what `ketch.toml` says.
        request_timeout, grace: seconds; a request_timeout of 0 is none.
        log_level: a level's name.
        reflection: tools are told what the server serves.
        shared: a socket that other workers accept from as well, served beside `address`; with `advertise` instead.
    """

    name: str
    version: str
    id: str
    address: str
    advertise: str
    metadata: Mapping[str, str]
    broker: Broker
    registry: Registry
    transport: Transport
    codecs: Codecs
    selector: SelectorMaker
    policies: Policies
    request_timeout: float
    grace: float
    log_level: str
    reflection: bool
    settings: Settings = field(repr=False)
    shared: socket | None = None

    @property
    def labels(self) -> Mapping[str, str]:
        """This instance's labels, with the host that it runs on."""
        return {HOST: gethostname(), **self.metadata}

    def site(self) -> Site:
        """Return what the broker gets to know of this program."""
        host = "127.0.0.1" if self.address.startswith("unix:") else self.address.rpartition(":")[0] or "127.0.0.1"
        return Site(self.name, self.id, self.registry, self.transport, host)


def build(settings: Settings, pinned: Mapping[str, Any]) -> Options:
    """Build the plugins and options. `pinned` is what code passed explicitly; it wins over the settings.

    A pinned broker, registry or transport is a name, a URL or an object.

    Raises:
        ConfigurationError: a plugin isn't there, a setting doesn't fit it, or nothing has a pinned one's name.
    """
    for name in pinned:
        if name not in _PINNABLE:
            raise ConfigurationError(f"unknown setting {name}{suggest(name, _PINNABLE)}")
    plugins = Plugins()

    def value(name: str) -> Any:
        return settings[name] if pinned.get(name) is None else pinned[name]

    return Options(
        name=value("server_name"),
        version=value("server_version"),
        id=value("server_id") or str(uuid4()),
        address=value("server_address"),
        advertise=value("server_advertise"),
        metadata=value("server_metadata"),
        broker=_plugin(plugins, Broker, settings, pinned),
        registry=_plugin(plugins, Registry, settings, pinned),
        transport=_secured(_plugin(plugins, Transport, settings, pinned), value),
        codecs=_codecs(plugins),
        selector=_selector(value("selector")),
        policies=_policies(pinned.get("policies"), settings["config_file"]),
        request_timeout=value("client_request_timeout"),
        grace=value("shutdown_grace"),
        log_level=settings["log_level"],
        reflection=value("server_reflection"),
        settings=settings,
    )


def _plugin(plugins: Plugins, contract: type, settings: Settings, pinned: Mapping[str, Any]) -> Any:
    kind = contract.__name__
    name = kind.lower()
    code = pinned.get(name)
    if isinstance(code, contract):
        return code
    if code is not None and not isinstance(code, str):
        raise ConfigurationError(f"{name} must be a {kind}, a name or a URL, not {type(code).__name__}")
    url = _with_address(kind, settings, code)
    if kind == "Registry" and url == Url("local") and settings.runtime_directory:
        url = Url("local", options={"runtime": settings.runtime_directory})
    if kind == "Broker":
        told = settings.conventional.get(url.name, {})
        url = replace(url, address=url.address or told.get("address", ""), path=url.path or told.get("path", ""))
    return plugins.load(kind, url.name).from_url(url)


def _secured(transport: Transport, value: Callable[[str], Any]) -> Transport:
    tls = Tls.read({name: value(name) for name in TLS_OPTIONS})
    if tls:
        transport.secure(tls)
    return transport


def _with_address(kind: str, settings: Settings, code: str | None) -> Url:
    """Return the plugin's URL with its separate address, if that is meant for it.

    An address belongs to the plugin that is named where it is, or further down: what stands higher beats it. So with
    `MICRO_BROKER=nats MICRO_BROKER_ADDRESS=…` and `--broker direct` the address is NATS's and falls away with it.
    """
    name = kind.lower()
    url = Url.parse(settings[name] if code is None else code)
    address = settings[f"{name}_address"]
    ranks = (
        _rank(settings.sources[f"{name}_address"]),
        _RANK_OF_CODE if code is not None else _rank(settings.sources[name]),
    )
    if address and ranks[0] > ranks[1]:
        url = replace(url, address="")
    elif ranks[0] < ranks[1] and address:
        said = settings.beaten.get(name, "") if code is None else settings[name]
        unsaid = code is not None and settings.sources[name] == "default"
        if url.address or (said and not unsaid and Url.parse(said).name != url.name):
            address = ""
    return locate(kind, url, address)


_RANK_OF_CODE = 3
#: What code may say: whatever can be set, but for what configures the program and not ketch.
_PINNABLE = {"policies", *(setting.name for setting in KNOWN)} - {
    *("log_level", "config_file"),
    *("broker_address", "registry_address", "transport_address"),
}


def _rank(source: str) -> int:
    return 2 if source.startswith("--") else 0 if source == "default" else 1


def _codecs(plugins: Plugins) -> Codecs:
    # protobuf first: the default for whatever type it can carry.
    names = sorted(plugins.names("Codec"), key=lambda name: (name != "protobuf", name != "json", name))
    return Codecs(*(plugins.load("Codec", name)() for name in names))


def _selector(chosen: str | SelectorMaker) -> SelectorMaker:
    if isinstance(chosen, str) and chosen not in SELECTORS:
        hint = suggest(chosen, set(SELECTORS)) or f"; there are: {', '.join(SELECTORS)}"
        raise ConfigurationError(f"Selector {chosen} not found{hint}")
    return find(chosen)


def _policies(said: Any, file: str) -> Policies:
    written = policyfile.read(file)
    if said is None:
        return written
    if not isinstance(said, Mapping):
        raise ConfigurationError(f"policies is a mapping from names to CallPolicy, not a {type(said).__name__}")
    return Policies(said).over(written)
