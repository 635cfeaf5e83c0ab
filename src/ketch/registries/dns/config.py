"""What a DNS URL may say."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from ...errors import ConfigurationError
from .names import SERVICE, Names, is_name

if TYPE_CHECKING:
    from ...url import Url

FAMILIES = {"any": ("A", "AAAA"), "4": ("A",), "6": ("AAAA",)}
_OPTIONS = ("name", "domain", "dots", "srv", "port", "family", "priorities", "min", "max", "timeout", "resolv_conf")
_SRV = re.compile(r"_[a-z0-9-]{1,62}\._(tcp|udp)")
_CONTRACT, _HOST = "contract.", "host."
_PORT = 53


@dataclass(frozen=True, slots=True)
class Config:
    """`dns://resolver:53,resolver/?option=…`.

    Attributes:
        resolvers: IP addresses and ports; none to take them from `resolv_conf`.
        resolv_conf: the file that has the search list; "" to search nowhere.
        names: where in DNS services are.
        srv: the service and protocol of SRV queries; "" for none of them.
        port: of instances that have only addresses; 0 to ask for SRV records only.
        types: of the address records that are asked for.
        all_priorities: show instances of each priority; else only those of the lowest value.
        least, most: seconds between two resolutions, whatever the TTL.
        timeout: seconds for one resolution.
    """

    resolvers: tuple[tuple[str, int], ...]
    resolv_conf: str
    names: Names
    srv: str
    port: int
    types: tuple[str, ...]
    all_priorities: bool
    least: float
    most: float
    timeout: float

    @classmethod
    def from_url(cls, url: Url) -> Self:
        """Read and check a URL.

        Raises:
            ConfigurationError: an option is unknown or wrong.
        """
        plain = {name: value for name, value in url.options.items() if not name.startswith((_CONTRACT, _HOST))}
        type(url)(url.name, options=plain).only(*_OPTIONS, f"{_CONTRACT}NAME", f"{_HOST}NAME")
        if url.path or url.username or url.password:
            raise ConfigurationError(f"dns: {url}: there is no path and no user; it is dns://resolver:53/?option=…")
        srv = url.options.get("srv", "_grpc._tcp").lower()
        if srv and _SRV.fullmatch(srv) is None:
            raise ConfigurationError(f"dns: srv is like _grpc._tcp, or empty for no SRV queries, not {srv!r}")
        port = int(_number(url, "port", 0, 0, 65535))
        if not srv and not port:
            raise ConfigurationError("dns: without SRV records it needs ?port=, the port of each instance")
        least = _number(url, "min", 1.0, 0.1, 3600.0)
        return cls(
            resolvers=tuple(_resolver(url, part.strip()) for part in url.address.split(",") if part.strip()),
            resolv_conf=url.options.get("resolv_conf", "" if url.address else "/etc/resolv.conf"),
            names=_names(url),
            srv=srv,
            port=port,
            types=FAMILIES[_choice(url, "family", *FAMILIES)],
            all_priorities=_choice(url, "priorities", "lowest", "all") == "all",
            least=least,
            most=_number(url, "max", max(30.0, least), least, 86_400.0),
            timeout=_number(url, "timeout", 5.0, 0.001, 3600.0),
        )

    @property
    def location(self) -> str:
        """The resolvers, for people."""
        return (
            ", ".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.resolvers)
            or self.resolv_conf
        )


def _names(url: Url) -> Names:
    template = url.options.get("name", SERVICE)
    if domain := url.options.get("domain", ""):
        template = f"{template}.{domain.removesuffix('.')}."
    if SERVICE not in template or not is_name(template.replace(SERVICE, "x")):
        raise ConfigurationError(
            f"dns: name (and domain) make a DNS name with {SERVICE} in it, such as {SERVICE}.shop, not {template!r}"
        )
    hosts = {name.removeprefix(_HOST): host for name, host in url.options.items() if name.startswith(_HOST)}
    for name, host in hosts.items():
        if not name or not is_name(host):
            raise ConfigurationError(f"dns: {_HOST}{name} is a name in DNS, not {host!r}")
    contracts = {
        name.removeprefix(_CONTRACT): service for name, service in url.options.items() if name.startswith(_CONTRACT)
    }
    for name, service in contracts.items():
        if not name or not service:
            raise ConfigurationError(f"dns: {_CONTRACT}{name} needs the name of a service")
    keep_dots = _choice(url, "dots", "dash", "keep") == "keep"
    return Names(template, keep_dots=keep_dots, hosts=hosts, contracts=contracts)


def _resolver(url: Url, text: str) -> tuple[str, int]:
    bare = text.startswith("[") or text.count(":") < 2  # noqa: PLR2004 - more colons are an IPv6 address's
    host, port = text, ""
    if bare and (":" in text.rpartition("]")[2]):
        host, _, port = text.rpartition(":")
    try:
        address = str(ipaddress.ip_address(host.strip("[]")))
        number = int(port) if port else _PORT
    except ValueError:
        number = 0
    if not 0 < number < 65536:  # noqa: PLR2004 - a port
        raise ConfigurationError(f"dns: {url}: {text!r} is no IP address of a resolver, such as 10.96.0.10:53")
    return address, number


def _choice(url: Url, option: str, *choices: str) -> str:
    choice = url.options.get(option, choices[0])
    if choice not in choices:
        raise ConfigurationError(f"dns: {option} is {' or '.join(choices)}, not {choice!r}")
    return choice


def _number(url: Url, option: str, default: float, least: float, most: float) -> float:
    number = url.number(option, default)
    if not least <= number <= most or (option == "port" and number != int(number)):
        raise ConfigurationError(f"dns: {option} is from {least:g} to {most:g}, not {number:g}")
    return number
