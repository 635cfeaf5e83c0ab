"""Mirror: one follow a name, and what watchers see of a backend that comes and goes."""

import asyncio
import logging
from contextlib import aclosing

import pytest

from ketch.errors import NotRunning, RegistryError
from ketch.registries.mirror import Mirror
from ketch.registry import Instance

ONE, TWO, THREE = (Instance("svc", f"id-{number}", f"h:{number}") for number in (1, 2, 3))


class Backend:
    """Says what a test wants it to say, to each that follows."""

    def __init__(self):
        self.known = ()
        self.away = ""
        self.follows = []
        self.following = 0
        self.lines = set()

    async def follow(self, name):
        self.follows.append(name)
        self.following += 1
        line = asyncio.Queue()
        self.lines.add(line)
        try:
            if self.away:
                raise RegistryError(self.away)
            yield self.known
            while True:
                item = await line.get()
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            self.lines.discard(line)
            self.following -= 1

    def tell(self, *known):
        self.known = known
        for line in self.lines:
            line.put_nowait(known)

    def fail(self, error):
        for line in self.lines:
            line.put_nowait(error)

    def leave(self, why="the cable was cut"):
        self.away = why
        self.fail(RegistryError(why))

    def come_back(self, *known):
        self.known, self.away = known, ""


@pytest.fixture
def backend():
    return Backend()


@pytest.fixture
async def mirror(backend):
    made = Mirror(backend.follow, "there", keep=0.15)
    yield made
    await made.close()


async def until(snapshots, *expected):
    async with asyncio.timeout(10):
        while await anext(snapshots) != expected:
            pass


async def true(condition):
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - a property, as a health check reads it
            await asyncio.sleep(0.005)


async def test_many_watchers_of_a_name_share_one_follow(backend, mirror):
    watches = [mirror.watch("svc") for _ in range(5)]
    for snapshots in watches:
        assert await anext(snapshots) == ()
    backend.tell(ONE)
    for snapshots in watches:
        await until(snapshots, ONE)
    assert backend.follows == ["svc"]
    for snapshots in watches:
        await snapshots.aclose()


async def test_each_name_is_followed_by_itself(backend, mirror):
    async with aclosing(mirror.watch("one")) as one, aclosing(mirror.watch(None)) as everything:
        await anext(one)
        await anext(everything)
        assert backend.follows == ["one", None]


async def test_a_name_is_followed_no_more_when_its_last_watcher_leaves(backend, mirror):
    async with aclosing(mirror.watch("svc")) as one:
        async with aclosing(mirror.watch("svc")) as two:
            await anext(one)
            await anext(two)
        assert backend.following == 1
    assert backend.following == 0


async def test_a_first_snapshot_that_fails_is_every_watchers_error_and_the_next_one_tries_again(backend, mirror):
    backend.away = "nobody there"
    answers = await asyncio.gather(*(anext(mirror.watch("svc")) for _ in range(3)), return_exceptions=True)
    assert [str(answer) for answer in answers] == ["nobody there"] * 3
    assert mirror.trouble == ""
    backend.come_back(ONE)
    async with aclosing(mirror.watch("svc")) as snapshots:
        assert await anext(snapshots) == (ONE,)


async def test_while_the_backend_is_away_watchers_old_and_new_have_what_was_known(backend, mirror):
    backend.known = (ONE,)
    async with aclosing(mirror.watch("svc")) as old, aclosing(mirror.watch("svc")) as new:
        assert await anext(old) == (ONE,)
        backend.leave()
        await true(lambda: mirror.trouble)
        assert "there" in mirror.trouble
        assert "the cable was cut" in mirror.trouble
        assert await anext(new) == (ONE,)


async def test_an_absence_is_logged_once_however_many_names_are_followed_and_however_long_it_lasts(
    backend, mirror, caplog
):
    caplog.set_level(logging.INFO, "ketch.registry")
    async with aclosing(mirror.watch("a")) as a, aclosing(mirror.watch("b")) as b, aclosing(mirror.watch(None)) as c:
        for snapshots in (a, b, c):
            await anext(snapshots)
        backend.leave()
        await true(lambda: len(backend.follows) > 8)
        backend.come_back(ONE)
        for snapshots in (a, b, c):
            await until(snapshots, ONE)
        assert mirror.trouble == ""
    levels = [record.levelname for record in caplog.records]
    assert levels == ["WARNING", "INFO"]
    assert "is away" in caplog.messages[0]
    assert "is back" in caplog.messages[1]


async def test_who_is_missing_after_an_absence_is_believed_in_for_a_while(backend, mirror):
    backend.known = (ONE, TWO)
    async with aclosing(mirror.watch("svc")) as snapshots:
        await until(snapshots, ONE, TWO)
        backend.leave()
        await true(lambda: mirror.trouble)
        backend.come_back(THREE)
        assert await anext(snapshots) == (ONE, TWO, THREE)
        assert await anext(snapshots) == (THREE,)


async def test_who_registers_again_in_that_while_stays(backend, mirror):
    backend.known = (ONE, TWO)
    async with aclosing(mirror.watch("svc")) as snapshots:
        await until(snapshots, ONE, TWO)
        backend.leave()
        await true(lambda: mirror.trouble)
        backend.come_back()
        await true(lambda: not mirror.trouble)
        backend.tell(TWO)
        assert await anext(snapshots) == (TWO,)


async def test_who_is_missing_is_believed_in_anew_when_the_backend_goes_away_again(backend, mirror):
    backend.known = (ONE,)
    async with aclosing(mirror.watch("svc")) as snapshots:
        await until(snapshots, ONE)
        for _ in range(3):
            backend.leave()
            await true(lambda: mirror.trouble)
            backend.come_back()
            await true(lambda: not mirror.trouble)
        backend.leave()
        await true(lambda: mirror.trouble)
        change = asyncio.ensure_future(anext(snapshots))
        done, _ = await asyncio.wait([change], timeout=0.3)
        assert not done
        backend.come_back()
        assert await change == ()


async def test_without_an_absence_who_is_missing_is_gone_at_once(backend, mirror):
    backend.known = (ONE, TWO)
    async with aclosing(mirror.watch("svc")) as snapshots:
        await until(snapshots, ONE, TWO)
        backend.tell(TWO)
        assert await anext(snapshots) == (TWO,)


async def test_a_watch_that_breaks_at_once_each_time_is_begun_ever_more_slowly(backend, mirror, monkeypatch):
    pauses = []
    real = asyncio.sleep

    async def sleep(seconds):
        pauses.append(seconds)
        await real(0)

    async def follow(name):
        yield ()
        if len(pauses) < 12:
            raise RegistryError("not allowed")
        await asyncio.Event().wait()

    mirror._follow = follow
    async with aclosing(mirror.watch("svc")) as snapshots:
        monkeypatch.setattr("ketch.registries.mirror.asyncio.sleep", sleep)
        await anext(snapshots)
        async with asyncio.timeout(10):
            while len(pauses) < 12:
                await real(0.001)
    assert pauses[0] <= 0.1
    assert min(pauses[-3:]) >= 5.0
    assert max(pauses) <= 10.0


@pytest.mark.parametrize("bug", [ZeroDivisionError, asyncio.CancelledError])
async def test_a_bug_of_a_plugin_is_logged_and_outlived(backend, mirror, caplog, bug):
    backend.known = (ONE,)
    async with aclosing(mirror.watch("svc")) as snapshots:
        await until(snapshots, ONE)
        backend.known = (ONE, TWO)
        backend.fail(bug("oh"))
        await until(snapshots, ONE, TWO)
    assert bug.__name__ in caplog.text


async def test_a_watch_that_simply_ends_is_begun_again(mirror):
    begun = []

    async def follow(name):
        begun.append(name)
        yield (ONE,) * len(begun)
        if len(begun) > 1:
            await asyncio.Event().wait()

    mirror._follow = follow
    async with aclosing(mirror.watch("svc")) as snapshots:
        await until(snapshots, ONE, ONE)


async def test_close_ends_watches_and_what_follows(backend, mirror):
    async with aclosing(mirror.watch("svc")) as snapshots:
        await anext(snapshots)
        waiting = asyncio.ensure_future(anext(snapshots, None))
        await asyncio.sleep(0)
        await mirror.close()
        assert await waiting is None
    assert backend.following == 0


async def test_close_while_the_first_answer_is_awaited_says_so(mirror):
    async def follow(name):
        await asyncio.Event().wait()
        yield ()

    mirror._follow = follow
    waiting = asyncio.ensure_future(anext(mirror.watch("svc")))
    await asyncio.sleep(0.01)
    await mirror.close()
    with pytest.raises(NotRunning):
        await waiting


async def test_a_watcher_that_is_cancelled_before_the_first_answer_leaves_the_others_alone(mirror):
    answer = asyncio.Event()

    async def follow(name):
        await answer.wait()
        yield (ONE,)
        await asyncio.Event().wait()

    mirror._follow = follow
    async with aclosing(mirror.watch("svc")) as one, aclosing(mirror.watch("svc")) as two:
        waiting, cancelled = asyncio.ensure_future(anext(one)), asyncio.ensure_future(anext(two))
        await asyncio.sleep(0.01)
        cancelled.cancel()
        await asyncio.wait([cancelled])
        answer.set()
        assert await waiting == (ONE,)
