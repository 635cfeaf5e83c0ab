"""What an etcd URL may say."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from ...errors import ConfigurationError
from ...tls import SYSTEM, ClientTls

if TYPE_CHECKING:
    from ...url import Url

#: Records as ketch writes them, or as go-micro does.
KETCH, GO_MICRO = "ketch", "go-micro"

_OPTIONS = ("format", "prefix", "timeout", "tls", "tls_ca", "tls_cert", "tls_key", "tls_server_name", "ttl")
_SWITCH = {"on": True, "true": True, "1": True, "off": False, "false": False, "0": False}
_PREFIXES = {KETCH: "/ketch", GO_MICRO: "/micro/registry"}
_PORT = 2379
_LONGEST_TTL = 86_400


@dataclass(frozen=True, slots=True)
class Config:
    """`etcd://user:password@host:port,host:port?option=…`.

    Attributes:
        endpoints: `host:port` of one member of the cluster or more.
        username, password: "" for none; never to be shown.
        prefix: what all keys begin with; without a slash at its end.
        format: `ketch` or `go-micro`.
        ttl: whole seconds that records live without their process.
        timeout: seconds that a call may take, with all tries.
        tls: how to encrypt; None for plain text.
    """

    endpoints: tuple[str, ...]
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    prefix: str = _PREFIXES[KETCH]
    format: str = KETCH
    ttl: int = 15
    timeout: float = 5.0
    tls: ClientTls | None = None

    @classmethod
    def from_url(cls, url: Url) -> Self:
        """Read and check a URL.

        Raises:
            ConfigurationError: an option is unknown or wrong.
        """
        url.only(*_OPTIONS)
        kind = url.options.get("format", KETCH)
        if kind not in _PREFIXES:
            raise ConfigurationError(f"etcd: format is {' or '.join(_PREFIXES)}, not {kind!r}")
        if bool(url.username) != bool(url.password):
            raise ConfigurationError("etcd: a user and a password come together: etcd://user:password@host:port")
        if url.path:
            raise ConfigurationError(f"{url}: keys are set apart by ?prefix=/{url.path}, not by a path")
        return cls(
            endpoints=_endpoints(url),
            username=url.username,
            password=url.password,
            prefix=_prefix(url, _PREFIXES[kind]),
            format=kind,
            ttl=math.ceil(_between(url, "ttl", 15, 1, _LONGEST_TTL)),
            timeout=_between(url, "timeout", 5.0, 0.01, 3600),
            tls=_tls(url),
        )

    @property
    def location(self) -> str:
        """The cluster and the prefix, for people."""
        return f"{','.join(self.endpoints)}{'' if self.prefix.startswith('/') else ' '}{self.prefix}"


def _endpoints(url: Url) -> tuple[str, ...]:
    return tuple(_endpoint(url, text.strip()) for text in (url.address or f"127.0.0.1:{_PORT}").split(","))


def _endpoint(url: Url, text: str) -> str:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or port == 0 or parts.netloc != text or "%" in text:
        raise ConfigurationError(f"{url}: {text!r} is no host:port")
    return text if port else f"{text.removesuffix(':')}:{_PORT}"


def _prefix(url: Url, usual: str) -> str:
    prefix = url.options.get("prefix", usual).rstrip("/")
    if not prefix.strip("/"):
        raise ConfigurationError(f"etcd: prefix must not be empty; {usual} is customary")
    try:
        prefix.encode()
    except UnicodeEncodeError:
        raise ConfigurationError(f"etcd: prefix={prefix!r} is no text") from None
    return prefix


def _between(url: Url, option: str, default: float, low: float, high: float) -> float:
    value = url.number(option, default)
    if not low <= value <= high:
        raise ConfigurationError(f"etcd: {option} is {low:g} to {high:g} seconds, not {value:g}")
    return value


def _tls(url: Url) -> ClientTls | None:
    options = url.options
    files = {name: options.get(f"tls_{name}", "") for name in ("ca", "cert", "key", "server_name")}
    text = options.get("tls")
    if text is not None and text.lower() not in _SWITCH:
        raise ConfigurationError(f"etcd: tls is on or off, not {text!r}")
    if bool(files["cert"]) != bool(files["key"]):
        raise ConfigurationError("etcd: tls_cert and tls_key come together")
    if not (any(files.values()) if text is None else _SWITCH[text.lower()]):
        return None
    return ClientTls(files["ca"] or SYSTEM, files["cert"], files["key"], files["server_name"])
