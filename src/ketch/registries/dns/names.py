"""Names: what a service is called in DNS."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

#: What stands for a service's name in a template.
SERVICE = "{service}"

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?")
_MAX_NAME = 253  # RFC 1035 section 2.3.4, written without the last dot


def is_name(text: str) -> bool:
    """Tell whether a text is a name in DNS, with or without a dot at its end."""
    plain = text.removesuffix(".")
    return len(plain) <= _MAX_NAME and all(_LABEL.fullmatch(label) for label in plain.lower().split("."))


class Names:
    """Where in DNS services and contracts are.

    Args:
        template: such as `{service}.shop.svc.cluster.local`; the name is put there in lower case, with `_` as `-`.
        keep_dots: leave the dots of a service's name; else they become `-`, since a Kubernetes Service is one label.
        hosts: names in DNS of single services or contracts, before the template.
        contracts: the service that serves each contract.
    """

    def __init__(
        self, template: str, *, keep_dots: bool, hosts: Mapping[str, str], contracts: Mapping[str, str]
    ) -> None:
        self._template = template
        self._keep_dots = keep_dots
        self._hosts = hosts
        self._contracts = contracts

    @property
    def listed(self) -> tuple[str, ...]:
        """The services that the configuration names."""
        return tuple(sorted({*self._contracts.values(), *(self._hosts.keys() - self._contracts.keys())}))

    def service(self, name: str) -> str:
        """Return the service that a service's or contract's name leads to."""
        return self._contracts.get(name, name)

    def contracts(self, service: str) -> tuple[str, ...]:
        """Return the contracts that a service is configured to serve."""
        return tuple(sorted(contract for contract, server in self._contracts.items() if server == service))

    def host(self, service: str) -> str:
        """Return a service's name in DNS, "" if there can be none."""
        if service in self._hosts:
            return self._hosts[service]
        label = service.lower().replace("_", "-")
        if not self._keep_dots:
            label = label.replace(".", "-")
        host = self._template.replace(SERVICE, label)
        return host if is_name(host) else ""
