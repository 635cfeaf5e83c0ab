"""Lookup: the instances of a name, from SRV records (RFC 2782) and addresses, and for how long that holds."""

from __future__ import annotations

import asyncio
import logging
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import dns.asyncresolver
import dns.exception
import dns.message
import dns.name
import dns.nameserver
import dns.rdatatype
import dns.resolver
import dns.rrset

from ...errors import RegistryError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .config import Config

log = logging.getLogger("ketch.registry")

#: SRV records, and addresses of one name, that are read at most.
MAX_TARGETS = 1000
_PAYLOAD = 1232  # bytes over UDP: what no path fragments (dnsflagday.net/2020)
_AT_ONCE = 8  # queries for the addresses of targets
_LONGEST = 86_400.0
_UNTOLD = 5.0  # seconds for which an answer holds that says nothing about it


class Place(NamedTuple):
    """Where an instance listens, and what its SRV record says of it; `weight` None without one."""

    host: str
    port: int
    target: str = ""
    priority: int = 0
    weight: int | None = None


class Found(NamedTuple):
    """What there is, and for how many seconds that may be believed.

    Attributes:
        places: where instances listen.
        ttl: see above.
        exist: whether there are such records, though they may lead nowhere.
    """

    places: tuple[Place, ...]
    ttl: float
    exist: bool = True


class _Answer(NamedTuple):
    records: tuple[Any, ...]
    additional: tuple[dns.rrset.RRset, ...]
    ttl: float


class _Addresses(NamedTuple):
    hosts: tuple[str, ...]
    ttl: float


class Lookup:
    """Resolves names.

    Args:
        config: which resolvers, what to ask them, how long to wait.

    Raises:
        RegistryError: there is no resolver.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        try:
            self._resolver = dns.asyncresolver.Resolver(config.resolv_conf, configure=bool(config.resolv_conf))
        except (dns.resolver.NoResolverConfiguration, OSError) as error:
            raise RegistryError(f"dns: {config.resolv_conf} names no resolver; write dns://10.96.0.10:53") from error
        if config.resolvers:
            self._resolver.nameservers = [dns.nameserver.Do53Nameserver(*resolver) for resolver in config.resolvers]
        self._resolver.lifetime = config.timeout
        # Several tries within it, at several resolvers: a lost packet must not cost all of it.
        self._resolver.timeout = min(2.0, config.timeout / 2.5)
        self._resolver.use_edns(0, 0, _PAYLOAD)

    async def find(self, host: str) -> Found:
        """Return the places of a name; none if it isn't there.

        Raises:
            RegistryError: no resolver says.
        """
        config = self._config
        try:
            async with asyncio.timeout(config.timeout):
                services = await self._services(host) if config.srv else None
                if services is not None and (services.exist or not config.port):
                    return services
                addresses = await self._addresses(host)
        except TimeoutError:
            raise RegistryError(f"dns: {config.location} says nothing of {host} within {config.timeout:g} s") from None
        return Found(tuple(Place(address, config.port) for address in addresses.hosts), addresses.ttl)

    async def _services(self, host: str) -> Found:
        """Return the places of SRV records."""
        answer = await self._ask(f"{self._config.srv}.{host}", "SRV")
        records = [record for record in answer.records if record.target != dns.name.root]
        if records and not self._config.all_priorities:
            first = min(record.priority for record in records)
            records = [record for record in records if record.priority == first]
        targets = {record.target for record in records}
        told = _addresses(answer.additional, self._config.types)
        told |= await self._targets(targets - told.keys())
        weighted = any(record.weight for record in records)
        places = tuple(
            Place(
                address,
                record.port,
                record.target.to_text(omit_final_dot=True),
                record.priority,
                record.weight if weighted else None,
            )
            for record in records
            for address in told[record.target].hosts
        )
        ttl = min([answer.ttl, *(told[target].ttl for target in targets)])
        return Found(places, ttl, exist=bool(answer.records))

    async def _targets(self, targets: Iterable[dns.name.Name]) -> dict[dns.name.Name, _Addresses]:
        at_once = asyncio.Semaphore(_AT_ONCE)

        async def one(target: dns.name.Name) -> tuple[dns.name.Name, _Addresses]:
            async with at_once:
                return target, await self._addresses(target)

        return dict(await asyncio.gather(*(one(target) for target in targets)))

    async def _addresses(self, host: str | dns.name.Name) -> _Addresses:
        answers = await asyncio.gather(*(self._ask(host, kind) for kind in self._config.types))
        hosts = [record.address for answer in answers for record in answer.records]
        # That there is no address of one family says nothing about when the other's has to be asked for again.
        ttl = min(answer.ttl for answer in answers if answer.records or not hosts)
        return _Addresses(tuple(hosts), ttl)

    async def _ask(self, name: str | dns.name.Name, kind: str) -> _Answer:
        """Return the records of a kind, as many as are read."""
        try:
            answer = await self._resolver.resolve(name, kind, search=True)
        except dns.resolver.NXDOMAIN as error:
            told = error.kwargs["responses"].values()  # of each name of the search list
            return _Answer((), (), min((_ttl(one) for one in told), default=_UNTOLD))
        except dns.resolver.NoAnswer as error:
            return _Answer((), (), _ttl(error.kwargs["response"]))
        except (dns.exception.DNSException, OSError) as error:
            reason = str(error).rstrip(".")
            raise RegistryError(f"dns: {kind} of {name} at {self._config.location}: {reason}") from error
        records = tuple(islice(answer.rrset or (), MAX_TARGETS))
        return _Answer(records, tuple(answer.response.additional), _ttl(answer.response))


def _ttl(response: dns.message.Message) -> float:
    """Return the seconds for which an answer holds; that there is none for as long as its SOA says (RFC 2308)."""
    try:
        chain = response.resolve_chaining() if isinstance(response, dns.message.QueryMessage) else None
    except dns.exception.DNSException:
        return _UNTOLD
    return _UNTOLD if chain is None or chain.minimum_ttl > _LONGEST else chain.minimum_ttl


def _addresses(additional: Iterable[dns.rrset.RRset], kinds: tuple[str, ...]) -> dict[dns.name.Name, _Addresses]:
    """Return the addresses that came along with an answer."""
    told: dict[dns.name.Name, _Addresses] = {}
    wanted = {dns.rdatatype.from_text(kind) for kind in kinds}
    for records in additional:
        if records.rdtype in wanted:
            before = told.get(records.name, _Addresses((), _LONGEST))
            hosts = tuple(record.address for record in islice(records, MAX_TARGETS))
            told[records.name] = _Addresses((*before.hosts, *hosts), min(before.ttl, records.ttl))
    return told
