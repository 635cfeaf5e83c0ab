"""Following: a name's instances, read at one revision of the store and watched from the next: nothing is missed."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

from ...errors import OutOfRange, RegistryError, ResourceExhausted
from ..complaints import Complaints
from .etcd_pb2 import Event, KeyValue, RangeRequest, WatchCreateRequest, WatchRequest, WatchResponse
from .layout import after
from .link import RANGE, WATCH

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from ...registry import Instance
    from ...transport import Stream
    from .layout import Layout
    from .link import Link

#: Keys that are read at a time, and that are followed for one name.
_PAGE = 500
_MOST_KEYS = 100_000
#: How many watches in a row that held for less than so many seconds are begun again without a pause.
_MOST_BRIEF, _BRIEF = 2, 1.0
#: How often reading starts over because the store was compacted meanwhile.
_READS = 5


class Following:
    """Follows names.

    Attributes:
        names: how many are followed now.
    """

    def __init__(self, link: Link, layout: Layout, place: str, timeout: float) -> None:
        self.names = 0
        self._link = link
        self._layout = layout
        self._timeout = timeout
        self._complaints = Complaints(place)

    async def follow(self, name: str | None) -> AsyncGenerator[tuple[Instance, ...], None]:
        """Yield all instances that answer to a name: at once, then after each change.

        Raises:
            RegistryError: no member of the cluster serves.
        """
        clock, brief = asyncio.get_running_loop().time, 0
        self.names += 1
        try:
            view = await self._read(name)
            while True:
                began = clock()
                try:
                    async with aclosing(self._changes(view)) as changes:
                        async for _ in changes:
                            yield view.snapshot()
                    view = await self._read(name)  # it was compacted
                except RegistryError as error:
                    brief = brief + 1 if clock() - began < _BRIEF else 0
                    if brief > _MOST_BRIEF:
                        raise
                    view = await self._read_on(view, error)
        finally:
            self.names -= 1

    async def _read_on(self, view: _View, error: RegistryError) -> _View:
        """Go on where a watch was lost: another member may serve at once, and nobody needs to hear of it.

        Raises:
            RegistryError: no member serves, or the cluster isn't what it was.
        """
        latest = await self._read(view.name)
        if latest.cluster != view.cluster or latest.revision < view.revision:
            raise RegistryError(f"etcd has lost what it knew, or is another one: {error}") from error
        return latest

    async def _read(self, name: str | None) -> _View:
        for left in reversed(range(_READS)):
            try:
                return await self._read_once(name)
            except RegistryError as error:
                if not left or not isinstance(error.__cause__, OutOfRange):
                    raise
        raise AssertionError

    async def _read_once(self, name: str | None) -> _View:
        view = _View(name, self._layout.prefixes(name))
        for prefix in view.prefixes:
            start, limit, more = prefix, _PAGE, True
            while more and len(view.keys) < _MOST_KEYS:
                request = RangeRequest(key=start, range_end=after(prefix), limit=limit, revision=view.revision)
                try:
                    answer = await self._link.call(RANGE, request)
                except RegistryError as error:
                    if limit == 1 or not _too_large(error):
                        raise
                    limit //= 2
                    continue
                view.revision = view.revision or answer.header.revision
                view.cluster = answer.header.cluster_id
                for pair in answer.kvs:
                    self._take(view, pair)
                more = answer.more and bool(answer.kvs)
                if more:
                    start = answer.kvs[-1].key + b"\0"
        return view

    async def _changes(self, view: _View) -> AsyncGenerator[None, None]:
        """Yield once it is watched, and after each change, until the store was compacted beyond what we know.

        Raises:
            RegistryError: the watch is lost.
        """
        async with self._link.stream(WATCH) as stream:
            try:
                async with asyncio.timeout(self._timeout):
                    going = await self._begin(stream, view)
            except TimeoutError as error:
                raise RegistryError(f"etcd didn't begin to watch within {self._timeout:g} s") from error
            if going:
                yield  # not before: who may read but not watch is told so at once
            while going:
                response = await _receive(stream)
                if response.canceled:
                    going = _compacted(response)
                else:
                    self._apply(view, response)
                    if response.events and not response.fragment:
                        yield

    async def _begin(self, stream: Stream, view: _View) -> bool:
        for prefix in view.prefixes:
            create = WatchCreateRequest(
                key=prefix, range_end=after(prefix), start_revision=view.revision + 1, fragment=True
            )
            await stream.send(WatchRequest(create_request=create).SerializeToString())
        created = 0
        while created < len(view.prefixes):
            response = await _receive(stream)
            if response.canceled:
                return _compacted(response)
            if response.created:
                if response.header.revision < view.revision:
                    raise RegistryError("this member of etcd is behind what another one has told")
                created += 1
            self._apply(view, response)
        return True

    def _apply(self, view: _View, response: WatchResponse) -> None:
        for event in response.events:
            view.keys.pop(event.kv.key, None)
            if event.type == Event.PUT:
                self._take(view, event.kv)
        view.revision = max(view.revision, response.header.revision)

    def _take(self, view: _View, pair: KeyValue) -> None:
        if len(view.keys) >= _MOST_KEYS:
            self._complaints.make(view.prefixes[0], f"more than {_MOST_KEYS} keys are too many")
            return
        try:
            found = self._layout.decode(pair.key, pair.value)
        except RegistryError as error:
            self._complaints.make(pair.key, error)
            return
        if meant := [instance for instance in found if view.name is None or instance.answers_to(view.name)]:
            view.keys[pair.key] = meant


class _View:
    """What is known of a name: its keys' instances, as of a revision."""

    def __init__(self, name: str | None, prefixes: Sequence[bytes]) -> None:
        self.name = name
        self.prefixes = prefixes
        self.keys: dict[bytes, list[Instance]] = {}
        self.revision = 0
        self.cluster = 0

    def snapshot(self) -> tuple[Instance, ...]:
        return tuple({instance.id: instance for found in self.keys.values() for instance in found}.values())


async def _receive(stream: Stream) -> WatchResponse:
    body = await stream.receive()
    if body is None:
        raise RegistryError("etcd has ended the watch")
    return WatchResponse.FromString(body)


def _compacted(response: WatchResponse) -> bool:
    """Return False, for a watch that ended because what comes next in it is no longer kept.

    Raises:
        RegistryError: it ended for another reason.
    """
    if not response.compact_revision:
        raise RegistryError(f"etcd refuses to watch: {response.cancel_reason or 'it does not say why'}")
    return False


def _too_large(error: RegistryError) -> bool:
    cause = error.__cause__
    return isinstance(cause, ResourceExhausted) and "too many requests" not in cause.message
