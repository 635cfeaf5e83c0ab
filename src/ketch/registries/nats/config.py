"""What the URL of a registry on NATS may say."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import ConfigurationError
from ...nats.config import ACCESS_OPTIONS, Access

if TYPE_CHECKING:
    from ...url import Url

#: Records as ketch writes them, or go-micro's protocol.
KETCH, GO_MICRO = "ketch", "go-micro"

_SWITCH = {"on": True, "true": True, "1": True, "off": False, "false": False, "0": False}
_STORAGES = ("memory", "file")
_DEFAULT_BUCKET = "ketch-instances"
_DEFAULT_TTL = 15.0
_WORD = re.compile(r"[A-Za-z0-9_-]{1,200}")
_LONGEST_TTL = 86_400
_MOST_REPLICAS = 5


@dataclass(frozen=True, slots=True)
class Config:
    """`nats://user:password@host:port,host:port?option=…`.

    Attributes:
        access: the servers, and how to log in.
        bucket: the name of the bucket, where there is one.
        ttl: seconds that records live without their process.
        replicas: servers of a cluster that keep the bucket.
        storage: `memory` or `file`.
        services: whether NATS's own tools are answered.
        format: `ketch` or `go-micro`.
        prefix: what subjects of announcements begin with, where there is no bucket.
    """

    access: Access
    bucket: str = _DEFAULT_BUCKET
    ttl: float = _DEFAULT_TTL
    replicas: int = 1
    storage: str = _STORAGES[0]
    services: bool = True
    format: str = KETCH
    prefix: str = _DEFAULT_BUCKET

    @classmethod
    def from_url(cls, url: Url, *options: str) -> Config:
        """Read and check a URL with some of these options.

        Raises:
            ConfigurationError: an option is unknown or wrong.
        """
        url.only(*ACCESS_OPTIONS, *options)
        if url.path:
            raise ConfigurationError(f"{url}: a registry on NATS has no path")
        return cls(
            access=Access.of(url),
            bucket=_word(url, "bucket"),
            prefix=_word(url, "prefix"),
            ttl=_between(url, "ttl", _DEFAULT_TTL, 1, _LONGEST_TTL),
            replicas=int(_between(url, "replicas", 1, 1, _MOST_REPLICAS)),
            storage=_one_of(url, "storage", _STORAGES),
            services=_switch(url, "services"),
            format=_one_of(url, "format", (KETCH, GO_MICRO)),
        )


def _word(url: Url, option: str) -> str:
    word = url.options.get(option, _DEFAULT_BUCKET)
    if _WORD.fullmatch(word) is None:
        raise ConfigurationError(f"{url.name}: {option} has letters, digits, '-' and '_', unlike {word!r}")
    return word


def _between(url: Url, option: str, default: float, least: float, most: float) -> float:
    number = url.number(option, default)
    if not least <= number <= most:
        raise ConfigurationError(f"{url.name}: {option} is {least:g} to {most:g}, not {number:g}")
    return number


def _one_of(url: Url, option: str, choice: tuple[str, ...]) -> str:
    text = url.options.get(option, choice[0])
    if text not in choice:
        raise ConfigurationError(f"{url.name}: {option} is {' or '.join(choice)}, not {text!r}")
    return text


def _switch(url: Url, option: str) -> bool:
    text = url.options.get(option, "on")
    if text not in _SWITCH:
        raise ConfigurationError(f"{url.name}: {option} is on or off, not {text!r}")
    return _SWITCH[text]
