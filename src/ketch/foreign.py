"""Foreign settings: go-micro's variables that ketch has no use for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Variables of go-micro that mean nothing here but may well be set where both run; a service that finds one says so.
NAMES: Final = frozenset(
    "MICRO_" + name
    for name in [
        "CLIENT",
        "SERVER",
        "CLIENT_RETRIES",
        "CLIENT_POOL_SIZE",
        "CLIENT_POOL_TTL",
        "REGISTER_TTL",
        "REGISTER_INTERVAL",
        "STORE",
        "STORE_ADDRESS",
        "STORE_DATABASE",
        "STORE_TABLE",
        "TRACER",
        "TRACER_ADDRESS",
        "AUTH",
        "AUTH_ID",
        "AUTH_SECRET",
        "AUTH_NAMESPACE",
        "AUTH_PUBLIC_KEY",
        "AUTH_PRIVATE_KEY",
        "AUTH_TOKEN",
        "CONFIG",
        "PROFILE",
        "DEBUG_PROFILE",
        "GENAI",
        "GENAI_KEY",
        "GENAI_MODEL",
        "PROXY",
        "NETWORK",
        "NETWORK_ADDRESS",
        "TLS_INSECURE",
        "TLS_SECURE",
        "NATS_ADDRESS",
        "ENV",
        "API_ADDRESS",
        "MCP_ADDRESS",
    ]
)
#: Those of them that ask for what is so anyway.
_AGREED: Final = {"MICRO_CLIENT": "grpc", "MICRO_SERVER": "grpc"}


def unheeded(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return those that are set and ask for something, in order."""
    return tuple(sorted(name for name in NAMES if environ.get(name, "") not in ("", _AGREED.get(name))))
