"""Policies as a file, `ketch.toml`.

    [call]                                     # all calls
    timeout = "2s"

    [call."go.micro.srv.user"]                 # a service, or a contract by its full name
    selector = "least_busy"
    prefer = "zone"

    [call."shippy.user.v1.UserService/Get"]    # a method
    hedge = "50ms"
    idempotent = true

Times are seconds, or text with a unit: `50ms`, `2s`, `1m`.
"""

from __future__ import annotations

import tomllib
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .errors import ConfigurationError
from .policy import CallPolicy, Policies
from .settings import suggest
from .values import seconds

if TYPE_CHECKING:
    from collections.abc import Callable

#: The file that is read where it is, unless the settings name another one.
USUAL: Final = "ketch.toml"

_MAX_FILE: Final = 1 << 20

_TIMES: Final = frozenset(("timeout", "backoff", "hedge", "eject_time"))
_TABLES: Final = frozenset(("match", "split"))
_KINDS: Final[dict[str, tuple[tuple[type, ...], str]]] = {
    **dict.fromkeys(("selector", "key", "prefer"), ((str,), "text")),
    **dict.fromkeys(("idempotent", "wait_for_ready"), ((bool,), "true or false")),
    **dict.fromkeys(_TABLES, ((dict,), "a table")),
    **dict.fromkeys(("budget", "breaker"), ((int, float), "a number")),
    "retry_on": ((list,), "a list of statuses"),
}
_FIELDS: Final = tuple(field.name for field in fields(CallPolicy))


def read(path: str) -> Policies:
    """Read a file; "" for `ketch.toml` in the working directory, if there is one.

    Raises:
        ConfigurationError: it isn't there, can't be read, or says what can't be.
    """
    file = Path(path or USUAL)
    if not path and not file.is_file():
        return Policies()
    try:
        with file.open("rb") as opened:
            data = opened.read(_MAX_FILE + 1)
        if len(data) > _MAX_FILE:
            raise ConfigurationError(f"{file} is over {_MAX_FILE} bytes")
        said = tomllib.loads(data.decode())
    except OSError as error:
        raise ConfigurationError(f"{file} can't be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file} is no TOML: {error}") from error
    try:
        return parse(said)
    except ConfigurationError as error:
        raise ConfigurationError(f"{file}: {error}") from None


def parse(said: dict[str, Any]) -> Policies:
    """Read the tables of a file.

    Raises:
        ConfigurationError: they say what can't be.
    """
    for name in said:
        if name != "call":
            raise ConfigurationError(f"unknown table [{name}]; there is [call]")
    if not isinstance(said.get("call", {}), dict):
        raise ConfigurationError("call is a table: [call]")
    named: dict[str, CallPolicy] = {}
    _collect("", said.get("call", {}), named)
    return Policies(named)


def _collect(name: str, table: dict[str, Any], named: dict[str, CallPolicy]) -> None:
    """Take a table's fields, and go into the tables in it: [call.go.micro.srv.user] is meant as it is read."""
    own: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict) and key not in _TABLES:
            _collect(f"{name}.{key}" if name else key, value, named)
        else:
            own[key] = value
    if not own:
        return
    where = f'[call."{name}"]' if name else "[call]"
    try:
        named[name] = CallPolicy(**{key: _value(key, value) for key, value in own.items()})
    except ConfigurationError as error:
        raise ConfigurationError(f"{where} {error}") from None


def _value(name: str, value: Any) -> Any:
    if name not in _FIELDS:
        raise ConfigurationError(f"has no {name}{suggest(name, _FIELDS)}")
    if name == "hedge" and value in ("auto", "off"):
        return value
    if name in _TIMES:
        return _time(name, value)
    kinds, what = _KINDS.get(name, ((int,), "a whole number"))
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise ConfigurationError(f"{name} = {value!r}: it is {what}")
    read = _READERS.get(name)
    return value if read is None else read(value)


def _time(name: str, value: Any) -> float:
    try:
        return seconds(str(value))  # true and false aren't
    except ValueError:
        raise ConfigurationError(f"{name} = {value!r}: it is a time, such as 0.5 or '500ms'") from None


def _shares(label: str, shares: Any) -> dict[str, float]:
    if not isinstance(shares, dict) or not all(type(share) in (int, float) for share in shares.values()):
        raise ConfigurationError(f"split: {label} has a table of shares, such as {{ '1.2.0' = 95, '1.3.0' = 5 }}")
    return {str(value): float(share) for value, share in shares.items()}


def _split(table: dict[str, Any]) -> dict[str, dict[str, float]]:
    return {label: _shares(label, shares) for label, shares in table.items()}


_READERS: Final[dict[str, Callable[[Any], Any]]] = {
    "retry_on": lambda statuses: tuple(str(status) for status in statuses),
    "match": lambda table: {str(label): str(value) for label, value in table.items()},
    "split": _split,
}
