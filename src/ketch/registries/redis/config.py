"""What the URL of a Redis registry may say beside where the server is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from ...errors import ConfigurationError
from ...resp.config import OPTIONS
from ...resp.config import Config as Place

if TYPE_CHECKING:
    from ...url import Url

_PREFIX = re.compile(r"[^\s{}\x00-\x1f]{1,200}")
_TTL = (0.1, 86_400)
_USUAL_PREFIX = "ketch"
_USUAL_TTL = 15.0


@dataclass(frozen=True, slots=True)
class Config:
    """`redis://user:password@host:port/database?prefix=ketch&ttl=15&…`.

    Attributes:
        place: the server, and how to get there.
        prefix: what all keys and channels begin with.
        ttl: seconds that records live without their process.
    """

    place: Place
    prefix: str = _USUAL_PREFIX
    ttl: float = _USUAL_TTL

    @classmethod
    def from_url(cls, url: Url) -> Self:
        """Read and check a URL.

        Raises:
            ConfigurationError: an option is unknown or wrong.
        """
        url.only(*OPTIONS, "prefix", "ttl")
        prefix = url.options.get("prefix", _USUAL_PREFIX)
        if not _PREFIX.fullmatch(prefix):
            raise ConfigurationError(f"redis: prefix={prefix[:40]!r} must be 1 to 200 characters, no spaces and braces")
        ttl = url.number("ttl", _USUAL_TTL)
        if not _TTL[0] <= ttl <= _TTL[1]:
            raise ConfigurationError(f"redis: ttl is {_TTL[0]:g} to {_TTL[1]:g} seconds, not {ttl:g}")
        return cls(Place.from_url(url), prefix, ttl)

    @property
    def location(self) -> str:
        """The server and the prefix, for people."""
        return f"{self.place.location} {self.prefix}"
