"""What an SQS URL may say."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from ...errors import ConfigurationError

if TYPE_CHECKING:
    from ...url import Url

_OPTIONS = (
    "connect_timeout",
    "max_size",
    "pollers",
    "prefix",
    "region",
    "retention",
    "timeout",
    "tls",
    "tls_ca",
    "tls_cert",
    "tls_key",
    "visibility",
    "wait",
)
_PREFIX = re.compile(r"[A-Za-z0-9-][A-Za-z0-9_-]{0,29}")

#: Bytes of an SNS message with its attributes, and of a batch (SNS: PublishBatch).
_MAX_SIZE = 256 * 1024


@dataclass(frozen=True, slots=True)
class Config:
    """`sqs://key:secret@host:port?option=…`; without an address it is AWS, without a key its usual chain.

    Attributes:
        endpoint: another server than AWS, such as moto's or LocalStack's; "" for AWS.
        region: the region; "" for that of the environment.
        key, secret: an access key; "" for the usual chain: environment, files, role.
        verify: how the server's certificate is judged: True, or a file of authorities.
        certificate: files of ours, of certificate and key; None for none.
        timeout, connect_timeout: seconds for a call with its retries, and to connect at start.
        prefix: what all names there begin with.
        visibility: seconds for which what was received is hidden from others; renewed until it is settled.
        wait: seconds of a long poll.
        pollers: long polls at a time, of one subscription.
        retention: seconds for which a group's queue keeps what nobody takes.
        max_size: bytes of a message with its attributes, and of a batch.
    """

    endpoint: str
    region: str
    key: str
    secret: str = field(repr=False)
    verify: bool | str
    certificate: tuple[str, str] | None
    timeout: float
    connect_timeout: float
    prefix: str
    visibility: int
    wait: int
    pollers: int
    retention: int
    max_size: int

    @classmethod
    def from_url(cls, url: Url) -> Self:
        """Read and check a URL.

        Raises:
            ConfigurationError: an option is unknown or wrong.
        """
        url.only(*_OPTIONS)
        if url.path:
            raise ConfigurationError(f"sqs: {url}: there is no path; name a region as ?region=eu-central-1")
        if bool(url.username) != bool(url.password):
            raise ConfigurationError("sqs: an access key and its secret come together: sqs://key:secret@…")
        return cls(
            endpoint=_endpoint(url),
            region=url.options.get("region", ""),
            key=url.username,
            secret=url.password,
            verify=url.options.get("tls_ca") or True,
            certificate=_certificate(url),
            timeout=_seconds(url, "timeout"),
            connect_timeout=_seconds(url, "connect_timeout"),
            prefix=_prefix(url),
            visibility=_whole(url, "visibility", 30, 1, 43_200),
            wait=_whole(url, "wait", 20, 1, 20),
            pollers=_whole(url, "pollers", 4, 1, 64),
            retention=_whole(url, "retention", 1_209_600, 60, 1_209_600),
            max_size=_whole(url, "max_size", _MAX_SIZE, 8192, 1024 * 1024),
        )

    @property
    def location(self) -> str:
        """Where it is, for people."""
        return f"sqs {self.endpoint or 'AWS'}{' ' if self.region else ''}{self.region}"


def _endpoint(url: Url) -> str:
    if not url.address:
        return ""
    try:
        parts = urlsplit(f"http://{url.address}")
        usable = bool(parts.hostname) and parts.port != 0 and "," not in url.address  # reading the port checks it
    except ValueError:
        usable = False
    if not usable:
        raise ConfigurationError(f"sqs: {url}: {url.address!r} is no host:port; leave it out for AWS itself")
    tls = {"tls", "tls_ca", "tls_cert", "tls_key"} & set(url.options) and url.options.get("tls") not in ("0", "false")
    return f"{'https' if tls else 'http'}://{url.address}"


def _certificate(url: Url) -> tuple[str, str] | None:
    cert, key = url.options.get("tls_cert", ""), url.options.get("tls_key", "")
    if bool(cert) != bool(key):
        raise ConfigurationError("sqs: tls_cert and tls_key come together")
    return (cert, key) if cert else None


def _prefix(url: Url) -> str:
    prefix = url.options.get("prefix", "")
    if prefix and _PREFIX.fullmatch(prefix) is None:
        raise ConfigurationError(f"sqs: prefix is up to 30 letters, digits, '-' and '_', not {prefix!r}")
    return prefix


def _seconds(url: Url, option: str) -> float:
    seconds = url.number(option, 5.0)
    if seconds <= 0:
        raise ConfigurationError(f"sqs: {option} must be more than 0 seconds, not {seconds:g}")
    return seconds


def _whole(url: Url, option: str, default: int, least: int, most: int) -> int:
    number = url.number(option, default)
    if number != int(number) or not least <= number <= most:
        raise ConfigurationError(f"sqs: {option} is a whole number from {least} to {most}, not {number:g}")
    return int(number)
