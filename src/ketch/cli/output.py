"""What commands have in common: reading bodies, printing what came from elsewhere."""

from __future__ import annotations

import json
import sys

from ..errors import ConfigurationError, Internal

#: Largest body read from standard input, in bytes.
_MAX_INPUT = 64 * 1024 * 1024


def body(argument: str | None) -> bytes:
    """Return a command's body: the argument, or standard input for `-`.

    Raises:
        ConfigurationError: standard input holds too much.
    """
    if argument != "-":
        return (argument or "").encode()
    data = sys.stdin.buffer.read(_MAX_INPUT + 1)
    if len(data) > _MAX_INPUT:
        raise ConfigurationError(f"standard input holds more than {_MAX_INPUT} bytes")
    return data


def checked_json(data: bytes) -> bytes:
    """Return the bytes if they are JSON.

    Raises:
        ConfigurationError: they aren't; the message says where.
    """
    try:
        json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"the body is no JSON: {error}") from error
    return data


def pairs(items: list[str]) -> dict[str, str]:
    """Read `name=value` arguments.

    Raises:
        ConfigurationError: one isn't.
    """
    split = [item.partition("=") for item in items]
    for name, equals, _ in split:
        if not name or not equals:
            raise ConfigurationError(f"{name!r} must be name=value")
    return {name: value for name, _, value in split}


def safe(text: str) -> str:
    """Return text without what could steer a terminal: control characters are escaped."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def pretty(data: bytes, indent: int | None = 2) -> str:
    """Return JSON from elsewhere for people: letters of all languages stay, what could steer a terminal is escaped.

    Raises:
        Internal: it isn't JSON.
    """
    try:
        text = json.dumps(json.loads(data), indent=indent, ensure_ascii=False)
    except (ValueError, RecursionError) as error:
        raise Internal(f"the reply is no JSON: {error}") from error
    return "\n".join(map(safe, text.split("\n")))


def seconds(text: str) -> float:
    """Read a number of seconds, 0 or more, for argparse."""
    number = float(text)
    if not 0 <= number < float("inf"):
        raise ValueError(text)
    return number


def positive(text: str) -> int:
    """Read a number from 1, for argparse."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number
