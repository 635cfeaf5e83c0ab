"""An instance as NATS's services protocol describes it (ADR-32): answers to PING, INFO and STATS, and INFO read back.

The protocol wants names of letters, digits, `-` and `_`, and semantic versions. Ours are mapped where they aren't
such, and the true ones travel in the metadata: `ketch-service`, `ketch-id`, `ketch-version`, `ketch-address`,
`ketch-contracts` (a JSON list), `ketch-ttl`. A service without these is somebody else's, and an instance all the same.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ...errors import RegistryError
from ...registry import Instance

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...stats import Stats

#: What all of the protocol's subjects begin with.
PREFIX: Final = "$SRV"
PING, INFO, STATS = "PING", "INFO", "STATS"
VERBS: Final = (PING, INFO, STATS)

#: The largest answer that is read.
_MAX_ANSWER: Final = 1024 * 1024

_OWN: Final = "ketch-"
_PLAIN: Final = re.compile(r"[A-Za-z0-9_-]+")
_ODD: Final = re.compile(r"[^A-Za-z0-9-]")
# semver.org, "Is there a suggested regular expression"
_SEMVER: Final = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(-((0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(\.(0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*))?(\+[0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*)?",
    re.ASCII,
)
_RELEASE: Final = "0.0.0"


class _Endpoint(msgspec.Struct):
    name: str = ""
    subject: str = ""


class _Info(msgspec.Struct):
    name: str = ""
    id: str = ""
    version: str = ""
    metadata: dict[str, str] | None = None
    endpoints: list[_Endpoint] | None = None


_info = msgspec.json.Decoder(_Info)
_contracts = msgspec.json.Decoder(tuple[str, ...])


def plain(name: str) -> str:
    """Return a name as the protocol takes it: itself, or `_` for dots, `__` for `_`, `_x20_` for another character.

    `go.micro.srv.user` is `go_micro_srv_user`.
    """
    return name if _PLAIN.fullmatch(name) else _ODD.sub(_escape, name) or "_"


def _escape(found: re.Match[str]) -> str:
    character = found[0]
    return {".": "_", "_": "__"}.get(character) or f"_x{ord(character):x}_"


def semantic(version: str) -> str:
    """Return a version as the protocol takes it: itself, or as a pre-release of 0.0.0; `0.0.0-latest`."""
    if _SEMVER.fullmatch(version):
        return version
    made = f"{_RELEASE}-{_ODD.sub('-', version)}"
    return made if _SEMVER.fullmatch(made) else f"{_RELEASE}-v{_ODD.sub('-', version)}"


class Description:
    """One instance, as tools are told of it.

    Args:
        instance: as it is registered.
        ttl: seconds within which it is announced again; 0 where it isn't.
        started: when, as RFC 3339 has it.
    """

    def __init__(self, instance: Instance, ttl: float, started: str) -> None:
        self.name = plain(instance.service)
        self.id = plain(instance.id)
        self._instance = instance
        self._started = started
        self._identity: dict[str, Any] = {
            "name": self.name,
            "id": self.id,
            "version": semantic(instance.version),
            "metadata": {
                **instance.metadata,
                f"{_OWN}service": instance.service,
                f"{_OWN}id": instance.id,
                f"{_OWN}version": instance.version,
                f"{_OWN}address": instance.address,
                f"{_OWN}contracts": msgspec.json.encode(instance.contracts).decode(),
                f"{_OWN}ttl": f"{ttl:g}",
            },
        }

    def answer(self, verb: str, stats: Stats) -> bytes:
        """Return the answer to PING, INFO or STATS."""
        made = {**self._identity, "type": f"io.nats.micro.v1.{verb.lower()}_response"}
        if verb == INFO:
            made["description"] = f"{self._instance.service}, a ketch service"
            made["endpoints"] = [endpoint for endpoint, _ in self._endpoints(stats)]
        elif verb == STATS:
            made["started"] = self._started
            made["endpoints"] = [
                {key: value for key, value in endpoint.items() if key != "metadata"} | figures
                for endpoint, figures in self._endpoints(stats)
            ]
        return msgspec.json.encode(made)

    def _endpoints(self, stats: Stats) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        """Yield each endpoint, and its figures."""
        address, metadata = self._instance.address, self._instance.metadata
        over_nats = metadata.get("transport") == "nats"  # its address is the one subject of all methods
        for method in stats.methods:
            contract, _, short = method.method.lstrip("/").rpartition("/")
            yield (
                {
                    "name": plain(f"{contract.rpartition('.')[2]}-{short}"),
                    "subject": address if over_nats else f"{contract}.{short}",
                    "queue_group": self.name,
                    "metadata": {
                        "method": method.method,
                        "transport": metadata.get("transport", ""),
                        "address": address,
                    },
                },
                _figures(method.calls, method.errors, method.last_failure, method.seconds),
            )
        for topic in stats.topics:
            yield (
                {
                    "name": plain(topic.handler),
                    "subject": topic.topic,
                    "queue_group": topic.group or "",
                    "metadata": {"topic": topic.topic, "broker": metadata.get("broker", "")},
                },
                _figures(topic.handled, topic.failed, "", topic.seconds),
            )


def _figures(requests: int, failed: int, last: str, seconds: float) -> dict[str, Any]:
    nanoseconds = int(seconds * 1e9)
    return {
        "num_requests": requests,
        "num_errors": failed,
        "last_error": last,
        "processing_time": nanoseconds,
        "average_processing_time": nanoseconds // requests if requests else 0,
    }


def read(answer: bytes) -> tuple[Instance, float]:
    """Return the instance that an answer to INFO describes, and its time to live; 0 for a service that has none.

    A service that isn't ketch's has its first endpoint's subject as address, and its endpoints in the metadata.

    Raises:
        RegistryError: it is no such answer.
    """
    if len(answer) > _MAX_ANSWER:
        raise RegistryError(f"an answer of {len(answer)} bytes, more than {_MAX_ANSWER}")
    try:
        told = _info.decode(answer)
        metadata = told.metadata or {}
        own = {key[len(_OWN) :]: value for key, value in metadata.items() if key.startswith(_OWN)}
        contracts = _contracts.decode(own.get("contracts", "[]"))
        ttl = float(own.get("ttl", "0"))
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise RegistryError(f"no answer to INFO: {error}") from error
    if not told.name or not told.id:
        raise RegistryError("no answer to INFO: it has no name or no id")
    if own.get("address"):
        labels = {key: value for key, value in metadata.items() if not key.startswith(_OWN)}
        service, id_, version = own.get("service") or told.name, own.get("id") or told.id, own.get("version", "latest")
        return Instance(service, id_, own["address"], version, contracts, labels), ttl
    endpoints = told.endpoints or []
    subjects = {f"endpoint:{endpoint.name}": endpoint.subject for endpoint in endpoints}
    first = endpoints[0].subject if endpoints else f"{PREFIX}.{PING}.{told.name}.{told.id}"
    labels = {**subjects, "transport": "nats-micro", **metadata}
    return Instance(told.name, told.id, first, told.version or "latest", (), labels), 0.0
