"""Url: where a plugin is and how it is set, as `nats://127.0.0.1:4222?stream=shop`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote, urlsplit

from .errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Url:
    """A plugin's name, address and options.

    Attributes:
        name: the plugin's name, the URL's scheme.
        address: `host:port`, several separated by commas, or whatever the plugin takes; "" for its default.
        path: what follows the address, without the leading slash.
        username, password: decoded; empty where absent. `str()` and `repr()` show neither a password nor a
            username that stands alone, since some brokers take a token there.
        options: the query, each name once.
    """

    name: str
    address: str = ""
    path: str = ""
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    options: dict[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def parse(cls, text: str) -> Url:
        """Read a URL, or a bare plugin name.

        Raises:
            ConfigurationError: the text is neither, or names an option twice.
        """
        if "://" not in text:
            return cls(_name(text))
        try:
            split = urlsplit(text)
        except ValueError as error:
            raise ConfigurationError(f"the URL of {text.partition('://')[0]!r} can't be read: {error}") from None
        if split.fragment:
            # Not shown: an unquoted "#" in a password has cut the URL in two.
            raise ConfigurationError(f"the URL of {split.scheme!r} holds a '#'; write it as %23")
        credentials, _, address = split.netloc.rpartition("@")
        username, _, password = credentials.partition(":")
        pairs = parse_qsl(split.query, keep_blank_values=True)
        options = dict(pairs)
        if len(options) != len(pairs):
            raise ConfigurationError(f"{split.scheme}://{address}: an option is given twice")
        return cls(
            _name(split.scheme),
            address,
            unquote(split.path[1:]),
            unquote(username),
            unquote(password),
            options,
        )

    def only(self, *known: str) -> None:
        """Check that no option is given that the plugin doesn't know.

        Raises:
            ConfigurationError: names the first unknown option and those that exist.
        """
        for name in self.options:
            if name not in known:
                choice = ", ".join(sorted(known)) or "none"
                raise ConfigurationError(f"{self.name} has no option {name!r}; it has: {choice}")

    def number(self, name: str, default: float) -> float:
        """Return an option as a number.

        Raises:
            ConfigurationError: it isn't one.
        """
        text = self.options.get(name)
        if text is None:
            return default
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise ConfigurationError(f"{self.name}: option {name}={text!r} is no number")
        return number

    def __str__(self) -> str:
        secret = f"{self.username}:***@" if self.password else "***@" if self.username else ""
        path = f"/{self.path}" if self.path else ""
        return f"{self.name}://{secret}{self.address}{path}"


def _name(text: str) -> str:
    if not text or not text.replace("-", "").replace("_", "").isalnum():
        shown = text.rpartition("@")[2]  # without credentials, should it be a URL that lacks its scheme
        raise ConfigurationError(f"{shown!r} is neither a plugin's name nor a URL such as nats://127.0.0.1:4222")
    return text
