"""What a Pub/Sub URL may say."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from ...errors import ConfigurationError

if TYPE_CHECKING:
    from ...url import Url

GOOGLE = "pubsub.googleapis.com:443"
#: The project where a server of one's own is named and no project is: emulators take any.
EMULATED_PROJECT = "ketch"

_OPTIONS = (
    "ack_deadline",
    "connect_timeout",
    "create",
    "credentials",
    "dead_letter_topic",
    "max_delivery_attempts",
    "timeout",
    "tls",
    "tls_ca",
    "tls_cert",
    "tls_key",
)
_SWITCH = {"on": True, "true": True, "1": True, "off": False, "false": False, "0": False}
_PROJECT = re.compile(r"[A-Za-z0-9][A-Za-z0-9.:_-]{0,99}")
_LONGEST_DEADLINE = 600
_ATTEMPTS = (5, 100)


@dataclass(frozen=True, slots=True)
class Config:
    """`googlepubsub://host:port/project?option=…`; without an address it is Google's own service.

    Attributes:
        address: host:port.
        project: Google Cloud's project id.
        google: whether it is Google's service: TLS, and the program's Google credentials.
        credentials: file of a service account's key; "" for the application's default credentials.
        tls: whether a server of one's own is spoken to over TLS.
        tls_ca, tls_cert, tls_key: PEM files, "" for none.
        timeout: seconds that publishing, subscribing and settling may take.
        connect_timeout: seconds to connect at start.
        ack_deadline: whole seconds that a delivery stays ours unless it is extended, which we do meanwhile.
        create: whether topics and subscriptions that don't exist are created.
        dead_letter_topic: topic that Pub/Sub itself puts away what failed too often; "" for none.
        max_delivery_attempts: how often that is, 5 to 100.
    """

    address: str
    project: str
    google: bool
    credentials: str
    tls: bool
    tls_ca: str
    tls_cert: str
    tls_key: str
    timeout: float
    connect_timeout: float
    ack_deadline: int
    create: bool
    dead_letter_topic: str
    max_delivery_attempts: int

    @classmethod
    def from_url(cls, url: Url) -> Self:
        """Read and check a URL.

        Raises:
            ConfigurationError: an option is unknown or wrong, or there is no project.
        """
        url.only(*_OPTIONS)
        if url.username or url.password:
            raise ConfigurationError("googlepubsub takes no user: name a service account's key file, ?credentials=…")
        options = url.options
        if ("tls_cert" in options) != ("tls_key" in options):
            raise ConfigurationError("googlepubsub: tls_cert and tls_key come together")
        files = {name: options.get(name, "") for name in ("tls_ca", "tls_cert", "tls_key")}
        return cls(
            address=_address(url) if url.address else GOOGLE,
            project=_project(url),
            google=not url.address,
            credentials=options.get("credentials", ""),
            tls=_switch(url, "tls", default=any(files.values())),
            **files,
            timeout=_seconds(url, "timeout"),
            connect_timeout=_seconds(url, "connect_timeout"),
            ack_deadline=_whole(url, "ack_deadline", 60, 1, _LONGEST_DEADLINE),
            create=_switch(url, "create", default=True),
            dead_letter_topic=options.get("dead_letter_topic", ""),
            max_delivery_attempts=_whole(url, "max_delivery_attempts", 20, *_ATTEMPTS),
        )

    @property
    def location(self) -> str:
        """Where it is, for people."""
        return f"googlepubsub://{self.address}/{self.project}"


def _address(url: Url) -> str:
    try:
        parts = urlsplit(f"grpc://{url.address}")
        usable = bool(parts.hostname) and bool(parts.port) and "," not in url.address  # reading the port checks it
    except ValueError:
        usable = False
    if not usable:
        raise ConfigurationError(f"{url}: {url.address!r} is no host:port")
    return url.address


def _project(url: Url) -> str:
    project = url.path or (EMULATED_PROJECT if url.address else "")
    if not project:
        raise ConfigurationError(
            "googlepubsub needs a project: googlepubsub:///my-project, or the variable GOOGLE_CLOUD_PROJECT"
        )
    if _PROJECT.fullmatch(project) is None:
        raise ConfigurationError(f"googlepubsub: {project!r} is no project id")
    return project


def _switch(url: Url, option: str, *, default: bool) -> bool:
    text = url.options.get(option)
    if text is None:
        return default
    if text.lower() not in _SWITCH:
        raise ConfigurationError(f"googlepubsub: {option} is on or off, not {text!r}")
    return _SWITCH[text.lower()]


def _seconds(url: Url, option: str) -> float:
    seconds = url.number(option, 5.0)
    if seconds <= 0:
        raise ConfigurationError(f"googlepubsub: {option} must be more than 0 seconds, not {seconds:g}")
    return seconds


def _whole(url: Url, option: str, default: int, least: int, most: int) -> int:
    number = url.number(option, default)
    if not least <= number <= most or number != int(number):
        raise ConfigurationError(f"googlepubsub: {option} is a whole number from {least} to {most}, not {number:g}")
    return int(number)
