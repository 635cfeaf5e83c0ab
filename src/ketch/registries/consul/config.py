"""What a Consul URL may say."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from ...errors import ConfigurationError, RegistryError

if TYPE_CHECKING:
    from ...url import Url

DEFAULT_ADDRESS = "127.0.0.1:8500"
FORMATS = ("ketch", "go-micro")
CONSISTENCIES = ("default", "consistent", "stale")
_TLS = ("tls", "tls_ca", "tls_cert", "tls_key")
_SECONDS = ("ttl", "timeout", "wait")
_TEXTS = ("prefix", "dc", "ns", "partition")
_OPTIONS = (*_SECONDS, *_TEXTS, *_TLS, "token_file", "consistency", "connections", "format")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PREFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
_MAX_TOKEN = 4096


@dataclass(frozen=True, slots=True)
class Config:
    """`consul://:token@host:port?option=…`, or `consul:///path/of/a/unix.socket?option=…`.

    Attributes:
        base: what paths of the API are appended to.
        socket: the path of the agent's UNIX socket, "" for TCP.
        place: where the agent is, for people.
        token: the ACL token, never to be shown.
        token_file: a file with the token; it is read when the registry is opened.
        tls: None for plain HTTP.
        scope: `ns` and `partition` of all requests, where they are set.
        dc: the datacenter that is watched, "" for the agent's own.
        prefix: what the names and ids of our services there begin with.
        go_micro: whether services are written as go-micro does.
        consistency: of what is read.
        ttl: seconds that a record lives without heartbeats.
        timeout: seconds to wait for each answer.
        wait: seconds that a blocking query blocks.
        connections: blocking queries at once.
    """

    base: str
    socket: str
    place: str
    token: str = field(repr=False)
    token_file: str
    tls: ssl.SSLContext | None
    scope: dict[str, str]
    dc: str
    prefix: str
    go_micro: bool
    consistency: str
    ttl: float
    timeout: float
    wait: float
    connections: int

    @classmethod
    def from_url(cls, url: Url) -> Self:
        """Read and check a URL.

        Raises:
            ConfigurationError: an option is unknown or wrong.
        """
        url.only(*_OPTIONS)
        if url.address and url.path:
            raise ConfigurationError(f"consul: {url}: a path is a UNIX socket's and needs no address: consul:///path")
        tls = _tls(url.options)
        address = url.address or DEFAULT_ADDRESS
        socket = f"/{url.path}" if url.path else ""
        if not socket:
            _check_address(url, address)
        base = "http://localhost" if socket else f"{'https' if tls else 'http'}://{address}"
        token = url.password or url.username
        if token and "token_file" in url.options:
            raise ConfigurationError("consul: there is a token in the URL and a token_file; keep one")
        for name in _TEXTS:
            _check_text(url, name)
        if url.options.get("format") == "go-micro" and "prefix" in url.options:
            raise ConfigurationError("consul: go-micro has no prefix; leave it out, or format=go-micro")
        return cls(
            base=base,
            socket=socket,
            place=f"unix:{socket}" if socket else base,
            token=_printable(
                token, ConfigurationError("consul: the token in the URL has characters that no token has")
            ),
            token_file=url.options.get("token_file", ""),
            tls=tls,
            scope={name: url.options[name] for name in ("ns", "partition") if name in url.options},
            dc=url.options.get("dc", ""),
            prefix=url.options.get("prefix", ""),
            go_micro=_choice(url, "format", FORMATS) == "go-micro",
            consistency=_choice(url, "consistency", CONSISTENCIES),
            ttl=_seconds(url, "ttl", 15.0, 1.0, 86_400.0),
            timeout=_seconds(url, "timeout", 5.0, 0.001, 3600.0),
            wait=_seconds(url, "wait", 30.0, 0.1, 600.0),
            connections=_connections(url),
        )

    def read_token(self) -> str:
        """Return the token; "" for none.

        Raises:
            RegistryError: its file can't be read.
        """
        if not self.token_file:
            return self.token
        try:
            with Path(self.token_file).open(encoding="ascii") as file:
                token = file.read(_MAX_TOKEN).strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text in ASCII"
            raise RegistryError(f"consul: token_file {self.token_file} can't be read: {reason}") from None
        return _printable(token, RegistryError(f"consul: token_file {self.token_file} holds no token"))


def _printable(token: str, error: Exception) -> str:
    if not all("!" <= character <= "~" for character in token):
        raise error
    return token


def _check_address(url: Url, address: str) -> None:
    try:
        parts = urlsplit(f"http://{address}")
        usable = bool(parts.hostname) and parts.port != 0 and not {",", "%", "/"} & set(address)
    except ValueError:
        usable = False
    if not usable:
        raise ConfigurationError(f"consul: {url}: {address!r} is no host:port; name one agent, the one on this host")


def _check_text(url: Url, name: str) -> None:
    text = url.options.get(name)
    if text is not None and (_PREFIX if name == "prefix" else _NAME).fullmatch(text) is None:
        raise ConfigurationError(f"consul: {name} is made of letters, digits, '-' and '_', not {text!r}")


def _choice(url: Url, option: str, choices: tuple[str, ...]) -> str:
    choice = url.options.get(option, choices[0])
    if choice not in choices:
        raise ConfigurationError(f"consul: {option} is {' or '.join(choices)}, not {choice!r}")
    return choice


def _seconds(url: Url, option: str, default: float, least: float, most: float) -> float:
    seconds = url.number(option, default)
    if not least <= seconds <= most:
        raise ConfigurationError(f"consul: {option} is from {least:g} to {most:g} seconds, not {seconds:g}")
    return seconds


def _connections(url: Url) -> int:
    number = url.number("connections", 64)
    if number != int(number) or not 1 <= number <= 1000:  # noqa: PLR2004 - said in the message
        raise ConfigurationError(f"consul: connections is a whole number from 1 to 1000, not {number:g}")
    return int(number)


def _tls(options: dict[str, str]) -> ssl.SSLContext | None:
    if not set(_TLS) & set(options) or options.get("tls") in ("0", "false"):
        return None
    if ("tls_cert" in options) != ("tls_key" in options):
        raise ConfigurationError("consul: tls_cert and tls_key come together")
    try:
        context = ssl.create_default_context(cafile=options.get("tls_ca"))
        if "tls_cert" in options:
            context.load_cert_chain(options["tls_cert"], options["tls_key"])
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"consul: the TLS files can't be used: {error}") from error
    return context
