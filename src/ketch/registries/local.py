"""The local registry: the processes of one user on one machine, with nothing to install.

Each instance is a file that its process keeps locked (see `folder`). A process that ends, however it
ends, loses the lock, and whoever watches sees that at the next look, twenty times a second. A look costs a
listing of the directory and a try at each record's lock; where there are so many that this would take more
than a hundredth of a core, it is done less often.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from ..errors import ConfigurationError, NotRunning, RegistryError
from ..registry import Instance, Registry
from .feed import Feed
from .folder import Folder, Held
from .reader import Reader
from .record import encode

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine

    from ..url import Url

log = logging.getLogger("ketch.registry")

_LOOK = 0.05  # seconds between two looks at the directory, while somebody watches
_SHARE = 100  # a look is followed by a pause of at least that many times its processor time …
_LONGEST_PAUSE = 1.0  # … but no longer one, in seconds
_KEEP = 0.5  # seconds between two looks after our own records


class LocalRegistry(Registry):
    """Instances of one user's processes on one machine.

    The directory is made with mode 0700, and refused when it is somebody else's or others may write in it.
    When it is removed, it is made again and what is registered here is written again.

    Args:
        directory: where the records are.
        runtime: the user's runtime directory (`XDG_RUNTIME_DIR`). Without a `directory`, the records are in
            `ketch/registry` there if it is this user's, as it isn't after `su` or in many containers, and
            otherwise in `ketch-<uid>/registry` in the system's temporary folder.
    """

    name = "local"
    lag = 0.1

    def __init__(self, directory: Path | None = None, *, runtime: Path | None = None) -> None:
        if sys.platform == "win32":
            raise ConfigurationError("the local registry needs POSIX file locks; on Windows choose another one")
        default = Path(tempfile.gettempdir(), f"ketch-{os.geteuid()}", "registry")
        self._folder = Folder(directory) if directory else Folder(default, private=1)
        self._runtime = None if directory else runtime
        self._reader = Reader(self._folder)
        self._held: dict[str, tuple[Held, bytes]] = {}
        self._feed: Feed | None = None
        self._watches = 0
        self._looking: asyncio.Task[None] | None = None
        self._keeping: asyncio.Task[None] | None = None

    @classmethod
    def from_url(cls, url: Url) -> Self:
        """Build it from `local://`, `local:///some/dir` or `local://?runtime=/run/user/1000`."""
        url.only("runtime")
        if url.address:
            raise ConfigurationError(f"the local registry takes an absolute directory: local:///some/dir, not {url}")
        runtime = url.options.get("runtime")
        return cls(Path("/", url.path) if url.path else None, runtime=Path(runtime) if runtime else None)

    async def open(self) -> None:
        """Make the directory and check that it is ours. Opening twice is no error."""
        if self._feed is None:
            if self._runtime is not None and _usable(self._runtime):
                self._folder = Folder(self._runtime / "ketch" / "registry", private=1)
                self._reader = Reader(self._folder)
            self._folder.prepare()
            self._folder.sweep()
            self._feed = Feed()

    async def close(self) -> None:
        """Take all records of this object away, and end its watches."""
        feed, self._feed = self._feed, None
        if feed is None:
            return
        feed.end()
        held, self._held = self._held, {}
        for record, _ in held.values():
            self._remove(record)
        await self._stop_looking()
        await self._stop_keeping()

    async def register(self, instance: Instance) -> None:
        """Write the instance's record and hold its lock."""
        self._opened()
        data = encode(instance)
        self._folder.prepare()
        self._write(instance.id, data)
        if self._keeping is None:
            self._keeping = self._spawn(self._keep())
        self._look_if_watched()

    async def deregister(self, instance: Instance) -> None:
        """Take the instance's record away, if this object has put it there."""
        self._opened()
        held = self._held.pop(instance.id, None)
        if held is not None:
            self._folder.remove(held[0])
            self._look_if_watched()
        if not self._held:
            await self._stop_keeping()

    async def watch(self, name: str | None = None) -> AsyncGenerator[tuple[Instance, ...], None]:
        """Yield snapshots until the registry is closed."""
        feed = self._opened()
        feed.publish(self._reader.look())
        snapshots = feed.watch(name)
        self._watches += 1
        if self._looking is None:
            self._looking = self._spawn(self._look_on())
        try:
            async for snapshot in snapshots:
                yield snapshot
        finally:
            self._watches -= 1
            if not self._watches:
                await self._stop_looking()
            await snapshots.aclose()

    @property
    def location(self) -> str:
        """The directory; which one of the defaults is known once the registry is open."""
        return str(self._folder.path)

    def _opened(self) -> Feed:
        if self._feed is None:
            raise NotRunning("the local registry isn't open; use it as `async with registry:`")
        return self._feed

    def _write(self, instance_id: str, data: bytes) -> None:
        held = self._folder.write(instance_id, data)
        before, self._held[instance_id] = self._held.get(instance_id), (held, data)
        if before is not None:
            before[0].let_go()

    def _remove(self, record: Held) -> None:
        try:
            self._folder.remove(record)
        except RegistryError as error:
            # Without its lock it counts as dead: the next reader that may will remove it.
            log.warning("%s; the record stays behind for others to remove", error)

    def _look_if_watched(self) -> None:
        # What this process changed itself, its own watchers needn't wait for. Should it fail, the next
        # regular look says so.
        if self._looking is not None and self._feed is not None:
            with contextlib.suppress(RegistryError):
                self._feed.publish(self._reader.look())

    async def _look_on(self) -> None:
        feed, failing, pause = self._opened(), False, _LOOK
        while True:
            await asyncio.sleep(pause)
            started = time.thread_time()
            try:
                feed.publish(self._reader.look())
            except RegistryError as error:
                if not failing:
                    log.warning("%s; going on with what was known", error)
                failing = True
            else:
                failing = False
            pause = min(max(_LOOK, _SHARE * (time.thread_time() - started)), _LONGEST_PAUSE)

    async def _keep(self) -> None:
        failing = False
        while True:
            await asyncio.sleep(_KEEP)
            try:
                self._yield_to_others()
                self._restore()
            except RegistryError as error:
                if not failing:
                    log.warning("%s; trying on to register again", error)
                failing = True
            else:
                failing = False

    def _yield_to_others(self) -> None:
        for instance_id in [id_ for id_, (held, _) in self._held.items() if self._folder.replaced(held)]:
            held, _ = self._held.pop(instance_id)
            held.let_go()
            log.warning("instance %r was registered again by another process, which has it now", instance_id)

    def _restore(self) -> None:
        lost = [instance_id for instance_id, (held, _) in self._held.items() if self._folder.lost(held)]
        if lost:
            self._folder.prepare()
            for instance_id in lost:
                self._write(instance_id, self._held[instance_id][1])
            log.warning("%s: records were removed; registered again: %s", self.location, ", ".join(map(repr, lost)))
            self._look_if_watched()

    async def _stop_looking(self) -> None:
        task, self._looking = self._looking, None
        await _stopped(task)

    async def _stop_keeping(self) -> None:
        task, self._keeping = self._keeping, None
        await _stopped(task)

    def _spawn(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        task.add_done_callback(self._task_ended)
        return task

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        # Neither task ends by itself; should one fail, watchers must not wait for ever.
        if not task.cancelled() and (error := task.exception()) is not None and self._feed is not None:
            self._feed.end(error)


def _usable(runtime: Path) -> bool:
    try:
        facts = runtime.stat()
    except OSError:
        return False
    return facts.st_uid == os.geteuid() and os.access(runtime, os.W_OK | os.X_OK)


async def _stopped(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
        await asyncio.wait([task])
