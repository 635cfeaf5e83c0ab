"""MdnsRegistry: announces what is registered here, keeps what is heard of others."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections import Counter
from contextlib import aclosing
from random import uniform
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

from ...errors import ConfigurationError, NotRunning, RegistryError
from ...registry import Instance, Registry
from ..feed import Feed
from .answering import BURST, Answering
from .cache import Cache
from .ether import PORT, Ether
from .forms import DnsSd, Form
from .gomicro_form import GoMicro
from .packet import LARGEST, Packet, decode, encode

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine

    from ...url import Url
    from .packet import Record

log = logging.getLogger("ketch.registry")

_TTL: Final = 15.0
_LONGEST: Final = 86_400.0
_OPTIONS: Final = ("interface", "port", "ttl", "domain", "format")
#: Seconds between the questions of somebody who begins to watch, and until the first snapshot.
_ASKING: Final = (0.0, 0.1, 0.4)
_FIRST: Final = 0.25
#: Seconds between two tries to have sockets again.
_RETRY: Final = 1.0
#: Services of a list that are asked for.
_LISTED: Final = 10_000


class MdnsRegistry(Registry):
    """Instances of one network, heard by multicast. Records live for `ttl` seconds after they were heard last.

    Args:
        form: how they look on the wire.
        interface: an IPv4 address of this host; "" for the one that multicast goes out of by default.
        port: 5353, but for tests.
        ttl: seconds.
    """

    name = "mdns"
    lag: ClassVar[float] = 0.2  # type: ignore[misc]  # a class's, as every plugin's

    def __init__(self, form: Form, *, interface: str = "", port: int = PORT, ttl: float = _TTL) -> None:
        self._form = form
        self._ttl = ttl
        self._ether = Ether(interface, port, self._take, self._failed)
        self._answering = Answering(form, self._ether, port, ttl)
        self._feed: Feed | None = None
        self._cache: Cache
        self._held: dict[str, Instance] = {}
        self._watched: Counter[str | None] = Counter()
        self._listed: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._trouble = ""
        self._complained = False

    @classmethod
    def from_url(cls, url: Url) -> Self:
        """Build it from `mdns://` or `mdns://?interface=192.168.1.7&ttl=15&domain=local&format=go-micro`."""
        url.only(*_OPTIONS)
        if url.address or url.path:
            raise ConfigurationError(
                f"the mdns registry has no address; name the interface: mdns://?interface=…, not {url}"
            )
        interface = url.options.get("interface", "")
        try:
            if interface:
                ipaddress.IPv4Address(interface)
        except ValueError:
            raise ConfigurationError(f"mdns: interface is an IPv4 address of this host, not {interface!r}") from None
        port, ttl = url.number("port", float(PORT)), url.number("ttl", _TTL)
        if port != int(port) or not 0 < port < 1 << 16 or not 1 <= ttl <= _LONGEST:
            raise ConfigurationError("mdns: port is a UDP port, ttl is 1 to 86400 seconds")
        return cls(_form(url), interface=interface, port=int(port), ttl=ttl)

    async def open(self) -> None:
        """Join the group. Opening twice is no error."""
        if self._feed is None:
            await self._ether.open()
            self._trouble = ""
            self._feed = Feed()
            self._cache = Cache(self._publish)
            self._spawn(self._keep())

    async def close(self) -> None:
        """Say goodbye for what is registered here, and leave the group."""
        feed, self._feed = self._feed, None
        if feed is None:
            return
        feed.end()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        held, self._held = self._held, {}
        for instance in held.values():
            self._announce(instance, leaving=True)
        await asyncio.sleep(0)
        self._ether.close()
        self._cache.close()
        self._watched.clear()
        self._listed.clear()

    async def register(self, instance: Instance) -> None:
        """Announce an instance, now and as long as it is registered."""
        self._opened()
        self._told(instance)  # what can't be told is refused before anything is changed
        before = self._held.get(instance.id)
        if before is not None and self._form.label(before) != self._form.label(instance):
            self._announce(before, leaving=True)
        self._held[instance.id] = instance
        self._announce(instance)
        await asyncio.sleep(0)

    async def deregister(self, instance: Instance) -> None:
        """Say goodbye for an instance."""
        self._opened()
        held = self._held.pop(instance.id, None)
        if held is not None:
            self._announce(held, leaving=True)
            self._spawn(self._say_again(held))
        await asyncio.sleep(0)

    async def watch(self, name: str | None = None) -> AsyncGenerator[tuple[Instance, ...], None]:
        """Yield snapshots until the registry is closed; the first after a quarter of a second of asking."""
        feed = self._opened()
        self._watched[name] += 1
        try:
            if self._watched[name] == 1:
                self._spawn(self._ask_for(name))
            await asyncio.sleep(_FIRST)
            async with aclosing(feed.watch(name)) as snapshots:
                async for snapshot in snapshots:
                    yield snapshot
        finally:
            self._watched[name] -= 1
            if self._feed is feed and not self._watched[name]:
                del self._watched[name]
                self._cache.drop_unless(self._wanted)

    @property
    def location(self) -> str:
        """The group."""
        return self._ether.place

    @property
    def trouble(self) -> str:
        """Why nothing can be sent, or is heard."""
        return self._trouble

    # what is said

    def _announce(self, instance: Instance, *, leaving: bool = False) -> None:
        self._ether.send(self._told(instance, leaving=leaving))

    def _told(self, instance: Instance, *, leaving: bool = False) -> bytes:
        records = self._form.tell(instance, 0 if leaving else max(1, round(self._ttl)))
        told = encode(Packet((), records, response=True))
        if len(told) > LARGEST:
            raise RegistryError(
                f"instance {instance.id!r}: its packet has {len(told)} bytes, more than the {LARGEST} that multicast "
                "DNS carries; shorten its metadata, or give it fewer contracts"
            )
        return told

    async def _say_again(self, instance: Instance) -> None:
        await asyncio.sleep(0.25)
        if instance.id not in self._held:
            self._announce(instance, leaving=True)

    async def _keep(self) -> None:
        """Announce what is registered, ask for what is watched, and have sockets: the work of a third of a lifetime."""
        while True:
            await asyncio.sleep(_RETRY if self._trouble else uniform(0.8, 1.0) * self._ttl / 3)  # noqa: S311 - spreading
            if not (await self._mend() if self._trouble else self._ether.check()):
                continue
            for number, instance in enumerate(list(self._held.values())):
                if number % BURST == BURST - 1:
                    await asyncio.sleep(0.01)
                if self._held.get(instance.id) is instance:
                    self._announce(instance)
            if self._form.polls and self._watched:
                self._ask([*self._watched, *self._listed])

    async def _mend(self) -> bool:
        self._ether.close()
        try:
            await self._ether.open()
        except RegistryError:
            return False
        if not self._ether.check():
            return False
        self._trouble = ""
        log.info("mdns: %s is back", self.location)
        self._ask([*self._watched, *self._listed])
        return True

    async def _ask_for(self, name: str | None) -> None:
        for pause in _ASKING:
            await asyncio.sleep(pause)
            self._ask([name, *self._listed])  # what was heard before for others was passed over

    def _ask(self, names: list[str | None]) -> None:
        for at in range(0, len(names), BURST):
            try:
                packet = encode(Packet(tuple(self._form.ask(names[at : at + BURST]))))
            except RegistryError:
                continue  # a name that no DNS carries is nobody's
            self._ether.send(packet, ask=self._form.polls)

    # what is heard

    def _take(self, data: bytes, source: tuple[str, int]) -> None:
        if self._feed is None:
            return
        try:
            packet = decode(data)
            if packet.response:
                self._learn(packet.records, source[0], len(data))
            elif self._held and (answers := self._answering.find(packet, self._held.values())):
                self._spawn(self._answering.give(answers, packet, source))
        except RegistryError as error:
            if not self._complained:
                self._complained = True
                log.warning("mdns: passed over what %s sent, and whatever follows of the kind: %s", source[0], error)

    def _learn(self, records: tuple[Record, ...], source: str, size: int) -> None:
        for label, (instance, ttl) in self._form.read(records).items():
            if instance is not None and self._wanted(instance):
                self._cache.keep(label, instance, self._lifetime(ttl), source, size)
            else:
                self._cache.drop(label)
        if isinstance(self._form, GoMicro) and self._watched:
            new = self._form.listed(records) - self._listed
            if new and len(self._listed) < _LISTED:
                self._listed |= new
                self._ask(list(new))

    def _lifetime(self, ttl: int) -> float:
        """Return what the sender says, who renews in time; who is asked is asked in time for ours."""
        return min(float(ttl), self._ttl if self._form.polls else _LONGEST)

    def _wanted(self, instance: Instance) -> bool:
        return None in self._watched or any(name is not None and instance.answers_to(name) for name in self._watched)

    def _publish(self) -> None:
        if self._feed is not None:
            self._feed.publish(self._cache.instances)

    def _failed(self, trouble: str) -> None:
        if not self._trouble:
            log.warning("mdns: %s", trouble)
        self._trouble = trouble

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("mdns: a part of it failed", exc_info=error)

    def _opened(self) -> Feed:
        if self._feed is None:
            raise NotRunning("the mdns registry isn't open; use it as `async with registry:`")
        return self._feed


def _form(url: Url) -> Form:
    form = url.options.get("format", "ketch")
    if form == "ketch":
        return DnsSd(url.options.get("domain", "local"))
    if form == "go-micro":
        return GoMicro(url.options.get("domain", "micro"))
    raise ConfigurationError(f"mdns: format is ketch or go-micro, not {form!r}")
