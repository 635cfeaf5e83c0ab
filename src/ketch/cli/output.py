"""What commands have in common: reading bodies, printing what came from elsewhere."""

from __future__ import annotations

import json
import sys

from ..errors import ConfigurationError

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
    except ValueError as error:
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


def pretty(data: bytes) -> str:
    """Return JSON bytes indented, for people; non-ASCII letters stay, control characters are escaped by JSON."""
    return json.dumps(json.loads(data), indent=2, ensure_ascii=False)
