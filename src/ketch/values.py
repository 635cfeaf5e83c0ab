"""Values: how the text of a setting, or of a file, is read. Each raises `ValueError` for what it can't be."""

from __future__ import annotations


def seconds(text: str) -> float:
    """Return the seconds of `2`, `2s`, `1.5s`, `500ms` or `1m`; go-micro writes durations so.

    Raises:
        ValueError: it isn't a time.
    """
    for suffix, factor in (("ms", 0.001), ("s", 1.0), ("m", 60.0)):
        if text.endswith(suffix) and text[: -len(suffix)]:
            return positive(text[: -len(suffix)]) * factor
    return positive(text)


def positive(text: str) -> float:
    """Return a number that isn't negative."""
    number = float(text)
    if not 0 <= number < float("inf"):
        raise ValueError(text)
    return number


def address(text: str) -> str:
    """`host:port`, `[::1]:port`, `:port` for all of the host's addresses, as Go writes it, or `unix:/path`."""
    _, colon, port = text.rpartition(":")
    if not text.startswith("unix:") and not (colon and port.isascii() and port.isdigit() and int(port) <= _MAX_PORT):
        raise ValueError(text)
    return text


_MAX_PORT = 65535


def labels(text: str) -> dict[str, str]:
    """`zone=a,tier=gold`."""
    pairs = [item.partition("=") for item in text.split(",") if item]
    if any(not name or not equals for name, equals, _ in pairs):
        raise ValueError(text)
    return {name.strip(): value.strip() for name, _, value in pairs}


def switch(text: str) -> bool:
    """Return what `on`, `off`, `true`, `false`, `1` or `0` says."""
    if text.lower() not in ("on", "off", "true", "false", "1", "0"):
        raise ValueError(text)
    return text.lower() in ("on", "true", "1")


#: go-micro's names for levels, where they differ.
_GO_LEVELS = {"TRACE": "DEBUG", "WARN": "WARNING", "FATAL": "CRITICAL"}


def level(text: str) -> str:
    """Return a level of logging, by its name or go-micro's."""
    name = text.upper()
    name = _GO_LEVELS.get(name, name)
    if name not in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"):
        raise ValueError(text)
    return name
