"""Settings: the command line and the environment, read and checked. Nothing else reads `sys.argv` or `os.environ`.

Precedence: what code passes explicitly, then the command line, then the environment, then the default. The names are
go-micro's: `--broker-address` on the command line is `MICRO_BROKER_ADDRESS` in the environment.
"""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from . import foreign, values
from .errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: `name` as an identifier, its default as text, what it is, and how its text is read."""

    name: str
    default: str
    help: str
    parse: Callable[[str], Any] = str

    @property
    def flag(self) -> str:
        """`--broker-address`."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """`MICRO_BROKER_ADDRESS`."""
        return "MICRO_" + self.name.upper()


KNOWN = (
    Setting("broker", "direct", "carries events: a plugin's name or URL, such as nats://127.0.0.1:4222"),
    Setting("broker_address", "", "where the broker is, host:port or a comma-separated list"),
    Setting("registry", "local", "finds services: a plugin's name or URL"),
    Setting("registry_address", "", "where the registry is"),
    Setting("transport", "grpc", "carries calls: a plugin's name or URL"),
    Setting("transport_address", "", "where the transport's backend is, if it has one"),
    Setting("selector", "least_busy", "picks the instance of a call: least_busy, round_robin, random, consistent_hash"),
    Setting("config_file", "", "call policies, a TOML file (default: ketch.toml where it runs, if there is one)"),
    Setting("server_name", "ketch", "the name of a program that doesn't name itself; a Service always does"),
    Setting("server_version", "latest", "the service's version"),
    Setting("server_id", "", "the instance's id; a fresh one if empty"),
    Setting(
        "server_address",
        "127.0.0.1:0",
        "what to listen on: host:port (port 0: a free one) or unix:/path",
        values.address,
    ),
    Setting("server_advertise", "", "the address others are told, if not the one listened on"),
    Setting("server_metadata", "", "labels of this instance: key=value,key=value", values.labels),
    Setting("server_reflection", "on", "whether gRPC tools are told what is served: on or off", values.switch),
    Setting("server_tls_cert", "", "serve over TLS only: a PEM file with our certificate and those up to its root"),
    Setting("server_tls_key", "", "its private key, a PEM file without a passphrase"),
    Setting(
        "server_tls_client_ca", "", "mutual TLS: callers must present a certificate from the roots in this PEM file"
    ),
    Setting("client_tls_ca", "", "call over TLS only: a PEM file of roots to trust, or `system` for the system's"),
    Setting("client_tls_cert", "", "what to present to servers that ask who calls: a PEM file, as --server-tls-cert"),
    Setting("client_tls_key", "", "its private key, a PEM file without a passphrase"),
    Setting("client_tls_server_name", "", "what servers' certificates must be valid for, if not the address called"),
    Setting(
        "client_request_timeout",
        "5s",
        "how long a call may take unless its caller says otherwise; 0 for as long as it will",
        values.seconds,
    ),
    Setting("shutdown_grace", "10s", "how long calls and handlers may go on after SIGTERM", values.seconds),
    Setting("log_level", "INFO", "DEBUG, INFO, WARNING, ERROR or CRITICAL", values.level),
)
_BY_NAME = {setting.name: setting for setting in KNOWN}
_ALIASES = {"GO_MICRO_BROKER": "broker"}

#: Variables that a broker's own tools and clients go by, and the part of its URL that they fill in where that says
#: nothing: plugin, part, variables in order.
CONVENTIONAL = (
    ("googlepubsub", "address", ("PUBSUB_EMULATOR_HOST",)),
    ("googlepubsub", "path", ("GOOGLE_CLOUD_PROJECT", "PUBSUB_PROJECT_ID")),
)


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting's value, parsed, and where it came from: a flag, a variable or "default"."""

    values: Mapping[str, Any]
    sources: Mapping[str, str]
    runtime_directory: str = ""
    beaten: Mapping[str, str] = field(default_factory=dict)  #: what the environment says where a flag says otherwise
    conventional: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  #: see CONVENTIONAL; part by plugin
    unheeded: tuple[str, ...] = ()  #: variables of go-micro that are set and mean nothing here

    def __getitem__(self, name: str) -> Any:
        return self.values[name]


def read(argv: Sequence[str] | argparse.Namespace | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Read the command line and the environment.

    Args:
        argv: arguments without the program's name; None for this process's own; a namespace of a parser that
            `add_flags` was applied to.
        environ: the environment; None for this process's own.

    Raises:
        ConfigurationError: a flag is unknown, a variable's name is nearly one of ours, or a value can't be read.
        SystemExit: `--help` was asked for, and printed.
    """
    environ = os.environ if environ is None else environ
    flags = argv if isinstance(argv, argparse.Namespace) else _parse(arguments() if argv is None else argv)
    _check_names(environ)
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for setting in KNOWN:
        text, where = _find(setting, flags, environ)
        sources[setting.name] = where
        try:
            values[setting.name] = setting.parse(text)
        except ValueError:
            raise ConfigurationError(f"{where}: {text!r} is no valid {setting.name}: {setting.help}") from None
    beaten = {s.name: text for s in KNOWN if sources[s.name] == s.flag and (text := _find_variable(s, environ)[0])}
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    return Settings(values, sources, runtime, beaten, _find_conventional(environ), foreign.unheeded(environ))


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add ketch's flags to a program's own parser; hand the parsed namespace to `Client.from_env` or `init`."""
    group = parser.add_argument_group("ketch", "each flag is also a variable: --broker-address is MICRO_BROKER_ADDRESS")
    for setting in KNOWN:
        default = f" (default: {setting.default})" if setting.default else ""
        group.add_argument(setting.flag, metavar="VALUE", help=setting.help + default)


def arguments() -> Sequence[str]:
    """Return this process's arguments, without the program's name."""
    return sys.argv[1:]


def environment() -> Mapping[str, str]:
    """Return this process's environment, for the few who must hand it to a child process."""
    return os.environ


def _find(setting: Setting, flags: argparse.Namespace, environ: Mapping[str, str]) -> tuple[str, str]:
    flag = getattr(flags, setting.name, None)
    if flag is not None:
        return flag, setting.flag
    text, variable = _find_variable(setting, environ)
    return (text, variable) if text else (setting.default, "default")


def _find_variable(setting: Setting, environ: Mapping[str, str]) -> tuple[str, str]:
    for variable in (setting.variable, *(alias for alias, name in _ALIASES.items() if name == setting.name)):
        if text := environ.get(variable, ""):
            return text, variable
    return "", ""


def _find_conventional(environ: Mapping[str, str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for plugin, part, variables in CONVENTIONAL:
        if text := next((environ[name] for name in variables if environ.get(name)), ""):
            found.setdefault(plugin, {})[part] = text
    return found


class _Parser(argparse.ArgumentParser):
    """argparse, with errors raised instead of exiting: the caller decides what an error means."""

    def error(self, message: str) -> NoReturn:
        raise ConfigurationError(message)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(description="A ketch service.", allow_abbrev=False)
    add_flags(parser)
    flags, unknown = parser.parse_known_args(argv)
    if unknown:
        # Of what is no flag, little is shown: it may be a URL with a password.
        name = unknown[0].partition("=")[0] if unknown[0].startswith("-") else unknown[0].partition(":")[0][:20]
        raise ConfigurationError(
            f"unknown argument {name}{suggest(name, [s.flag for s in KNOWN])}; --help lists them all"
        )
    return flags


def _check_names(environ: Mapping[str, str]) -> None:
    known = {setting.variable for setting in KNOWN} | set(_ALIASES)
    for name in environ:
        if (
            name.startswith("MICRO_")
            and name not in known
            and name not in foreign.NAMES
            and (hint := suggest(name, known))
        ):
            raise ConfigurationError(f"unknown variable {name}{hint}")


def suggest(name: str, known: Sequence[str] | set[str]) -> str:
    """Return `; did you mean X?` where a known name is near, otherwise ""."""
    near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.75)
    return f"; did you mean {near[0]}?" if near else ""
