# ruff: noqa: D102 - a test's name is its sentence
"""What is seen, what changes, opening and closing, bad input: the promises of every registry."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, TypeAlias

import pytest
import pytest_asyncio

from ...errors import ConfigurationError, NotRunning, RegistryError
from ...registry import Instance, Registry
from ...url import Url

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable

    Snapshots: TypeAlias = AsyncGenerator[tuple[Instance, ...], None]
    Pair: TypeAlias = tuple[Registry, Registry]

USER = Instance("go.micro.srv.user", "user-1", "127.0.0.1:5001", contracts=("shippy.user.v1.UserService",))
EMAIL = Instance("go.micro.srv.email", "email-1", "127.0.0.1:5002")


class RegistrySuite:
    """The promises of `ketch.registry.Registry`.

    Attributes:
        shared: what one registry object registers, others see. Without it a test's two objects are one.
        patience: seconds after which what was promised counts as broken; well above the registry's `lag`.
        many: how many instances are "many".
    """

    pytestmark = pytest.mark.asyncio

    shared: ClassVar[bool] = True
    patience: ClassVar[float] = 10.0
    many: ClassVar[int] = 300

    @pytest.fixture
    def make(self) -> Callable[[], Registry]:
        """Return a function that makes registries, not open, of one backend that is empty at first."""
        raise NotImplementedError("override the fixture `make`: it returns a function that makes a registry")

    @pytest_asyncio.fixture
    async def pair(self, make: Callable[[], Registry]) -> AsyncIterator[Pair]:
        """Open two registries of one backend: one to register with, one to watch."""
        async with AsyncExitStack() as stack:
            one = await stack.enter_async_context(make())
            yield one, await stack.enter_async_context(make()) if self.shared else one

    async def until(self, snapshots: Snapshots, *expected: Instance) -> tuple[Instance, ...]:
        """Read snapshots until one holds exactly the expected instances."""
        latest: tuple[Instance, ...] | None = None
        try:
            async with asyncio.timeout(self.patience):
                while latest is None or sorted(latest, key=_id) != sorted(expected, key=_id):
                    latest = await anext(snapshots)
        except TimeoutError:
            pytest.fail(f"expected {expected}, the latest snapshot is {latest}")
        return latest

    async def see(self, registry: Registry, name: str | None, *expected: Instance) -> None:
        """Watch until exactly the expected instances are seen."""
        async with aclosing(registry.watch(name)) as snapshots:
            await self.until(snapshots, *expected)

    # --- what is seen

    async def test_the_first_snapshot_comes_at_once_even_when_nobody_is_there(self, pair: Pair) -> None:
        async with aclosing(pair[1].watch("nobody")) as snapshots:
            assert await asyncio.wait_for(anext(snapshots), self.patience) == ()

    async def test_an_instance_is_seen_by_the_name_of_its_service(self, pair: Pair) -> None:
        await pair[0].register(USER)
        await self.see(pair[1], USER.service, USER)

    async def test_an_instance_is_seen_by_the_name_of_a_contract(self, pair: Pair) -> None:
        await pair[0].register(USER)
        await self.see(pair[1], "shippy.user.v1.UserService", USER)

    async def test_an_instance_is_not_seen_by_another_name(self, pair: Pair) -> None:
        await pair[0].register(USER)
        await pair[0].register(EMAIL)
        await self.see(pair[1], EMAIL.service, EMAIL)
        await self.see(pair[1], "go.micro.srv")
        await self.see(pair[1], USER.id)

    async def test_all_instances_are_seen_without_a_name(self, pair: Pair) -> None:
        await pair[0].register(USER)
        await pair[0].register(EMAIL)
        await self.see(pair[1], None, USER, EMAIL)

    async def test_who_registers_sees_itself(self, pair: Pair) -> None:
        await pair[0].register(USER)
        await self.see(pair[0], USER.service, USER)

    async def test_both_registries_see_what_each_of_them_registers(self, pair: Pair) -> None:
        await pair[0].register(USER)
        await pair[1].register(EMAIL)
        for registry in pair:
            await self.see(registry, None, USER, EMAIL)

    async def test_two_services_may_share_a_name(self, pair: Pair) -> None:
        other = Instance(USER.service, "stranger", "127.0.0.1:5009", contracts=("another.v1.Service",))
        await pair[0].register(USER)
        await pair[1].register(other)
        await self.see(pair[0], USER.service, USER, other)
        await self.see(pair[0], "another.v1.Service", other)

    async def test_every_field_arrives_as_it_was(self, pair: Pair) -> None:
        told = Instance(
            "größe/../服务 🐍",
            'a/b\\c:*?"<>|\n\t\x01 %2F ..',
            "[::1]:5001",
            version="1.2.0-rc.1+build",
            contracts=("a.B", "c.D", "ünï.Code"),
            metadata={
                "transport": "grpc",
                "größe": "groß",
                "": "",
                "quote\"'\\": "\r\n\x7f",
                "🐍": "x" * 4000,
            },
        )
        await pair[0].register(told)
        async with aclosing(pair[1].watch(told.service)) as snapshots:
            (seen,) = await self.until(snapshots, told)
        assert (seen.service, seen.id, seen.address) == (told.service, told.id, told.address)
        assert (seen.version, seen.contracts) == (told.version, told.contracts)
        assert dict(seen.metadata) == dict(told.metadata)

    async def test_ids_that_look_like_paths_are_only_names(self, pair: Pair) -> None:
        odd = [Instance("svc", text, "h:1") for text in ("..", ".", "/", "../../etc/passwd", "x" * 1000, "a", "A")]
        for instance in odd:
            await pair[0].register(instance)
        await self.see(pair[1], "svc", *odd)
        for instance in odd:
            await pair[0].deregister(instance)
        await self.see(pair[1], "svc")

    async def test_many_instances_are_all_seen_and_all_go(self, pair: Pair) -> None:
        crowd = [Instance("crowd", f"id-{number}", f"127.0.0.1:{number + 1}") for number in range(self.many)]
        for instance in crowd:
            await pair[0].register(instance)
        async with aclosing(pair[1].watch("crowd")) as snapshots:
            await self.until(snapshots, *crowd)
            for instance in crowd:
                await pair[0].deregister(instance)
            await self.until(snapshots)

    # --- changes

    async def test_a_watcher_is_told_of_a_new_instance(self, pair: Pair) -> None:
        async with aclosing(pair[1].watch(USER.service)) as snapshots:
            await self.until(snapshots)
            await pair[0].register(USER)
            await self.until(snapshots, USER)

    async def test_a_watcher_is_told_of_a_deregistered_instance(self, pair: Pair) -> None:
        await pair[0].register(USER)
        async with aclosing(pair[1].watch(USER.service)) as snapshots:
            await self.until(snapshots, USER)
            await pair[0].deregister(USER)
            await self.until(snapshots)

    async def test_registering_an_id_again_replaces_its_record(self, pair: Pair) -> None:
        moved = replace(USER, address="127.0.0.1:6001", metadata={"moved": "yes"})
        await pair[0].register(USER)
        async with aclosing(pair[1].watch(USER.service)) as snapshots:
            await self.until(snapshots, USER)
            await pair[0].register(moved)
            await self.until(snapshots, moved)
            await pair[0].deregister(moved)
            await self.until(snapshots)

    async def test_an_id_may_move_to_another_service(self, pair: Pair) -> None:
        moved = replace(USER, service="go.micro.srv.account", contracts=())
        await pair[0].register(USER)
        await self.see(pair[1], USER.service, USER)
        await pair[0].register(moved)
        await self.see(pair[1], moved.service, moved)
        await self.see(pair[1], USER.service)
        await self.see(pair[1], USER.contracts[0])

    async def test_an_instance_comes_back_after_it_was_deregistered(self, pair: Pair) -> None:
        async with aclosing(pair[1].watch(USER.service)) as snapshots:
            for _ in range(3):
                await pair[0].register(USER)
                await self.until(snapshots, USER)
                await pair[0].deregister(USER)
                await self.until(snapshots)

    async def test_deregistering_what_is_not_there_is_no_error(self, pair: Pair) -> None:
        await pair[0].deregister(USER)
        await pair[0].register(EMAIL)
        await pair[0].deregister(USER)
        await pair[0].deregister(EMAIL)
        await pair[0].deregister(EMAIL)
        await self.see(pair[1], None)

    async def test_a_change_of_one_service_does_not_wake_the_watchers_of_another(self, pair: Pair) -> None:
        await pair[0].register(USER)
        async with aclosing(pair[1].watch(USER.service)) as snapshots:
            await self.until(snapshots, USER)
            waiting = asyncio.ensure_future(anext(snapshots))
            await pair[0].register(EMAIL)
            await self.see(pair[1], EMAIL.service, EMAIL)
            assert not waiting.done()
            await pair[0].deregister(USER)
            assert await asyncio.wait_for(waiting, self.patience) == ()

    async def test_a_slow_reader_gets_the_latest_and_nothing_older(self, pair: Pair) -> None:
        async with aclosing(pair[1].watch("svc")) as slow, aclosing(pair[1].watch("svc")) as fast:
            await self.until(slow)
            for port in range(1, 20):
                await pair[0].register(Instance("svc", "moving", f"h:{port}"))
            latest = Instance("svc", "moving", "h:20")
            await pair[0].register(latest)
            await self.until(fast, latest)
            assert await asyncio.wait_for(anext(slow), self.patience) == (latest,)

    async def test_the_order_is_stable(self, pair: Pair) -> None:
        crew = [Instance("svc", f"id-{number}", f"h:{number}") for number in (5, 3, 9, 1, 7)]
        late = Instance("svc", "id-4", "h:4")
        for instance in crew:
            await pair[0].register(instance)
        async with aclosing(pair[1].watch("svc")) as snapshots:
            before = await self.until(snapshots, *crew)
            await pair[0].register(late)
            after = await self.until(snapshots, *crew, late)
            assert [instance for instance in after if instance != late] == list(before)
            await pair[0].deregister(late)
            assert await self.until(snapshots, *crew) == before

    async def test_many_watchers_are_all_told(self, pair: Pair) -> None:
        async with AsyncExitStack() as stack:
            watchers = [await stack.enter_async_context(aclosing(pair[1].watch(USER.service))) for _ in range(50)]
            for snapshots in watchers:
                await self.until(snapshots)
            await pair[0].register(USER)
            for snapshots in watchers:
                await self.until(snapshots, USER)

    async def test_a_storm_of_changes_converges(self, pair: Pair) -> None:
        async def churn(registry: Registry, number: int) -> Instance:
            for turn in range(10):
                instance = Instance("storm", f"id-{number}", f"h:{turn + 1}")
                await registry.register(instance)
                if turn % 3 == 2:
                    await asyncio.sleep(0)
                    await registry.deregister(instance)
            return instance

        async with aclosing(pair[1].watch("storm")) as snapshots:
            left = await asyncio.gather(*(churn(pair[number % 2], number) for number in range(20)))
            await self.until(snapshots, *left)

    # --- opening and closing

    async def test_close_deregisters_what_is_left(self, make: Callable[[], Registry], pair: Pair) -> None:
        if not self.shared:
            pytest.skip("nobody else could see it")
        async with aclosing(pair[1].watch()) as snapshots:
            async with make() as leaving:
                await leaving.register(USER)
                await leaving.register(EMAIL)
                await self.until(snapshots, USER, EMAIL)
            await self.until(snapshots)

    async def test_close_leaves_the_records_of_others(self, make: Callable[[], Registry], pair: Pair) -> None:
        if not self.shared:
            pytest.skip("nobody else could see it")
        await pair[0].register(USER)
        async with make() as leaving:
            await leaving.register(EMAIL)
            await self.see(pair[1], None, USER, EMAIL)
        await self.see(pair[1], None, USER)

    async def test_closing_twice_is_no_error(self, make: Callable[[], Registry]) -> None:
        registry = make()
        await registry.close()
        await registry.open()
        await registry.register(USER)
        await registry.close()
        await registry.close()

    async def test_a_registry_that_was_closed_opens_again(self, make: Callable[[], Registry]) -> None:
        registry = make()
        for _ in range(2):
            async with registry:
                await self.see(registry, USER.service)
                await registry.register(USER)
                await self.see(registry, USER.service, USER)

    async def test_what_is_not_open_says_so(self, make: Callable[[], Registry]) -> None:
        registry = make()
        with pytest.raises(NotRunning):
            await registry.register(USER)
        with pytest.raises(NotRunning):
            await registry.deregister(USER)
        with pytest.raises(NotRunning):
            await anext(registry.watch())

    async def test_close_ends_the_watches(self, make: Callable[[], Registry]) -> None:
        async with make() as registry:
            snapshots = registry.watch()
            await anext(snapshots)
            waiting = asyncio.ensure_future(anext(snapshots, None))
            await asyncio.sleep(0)
        assert await asyncio.wait_for(waiting, self.patience) is None

    async def test_nothing_runs_on_after_close(self, make: Callable[[], Registry]) -> None:
        before = asyncio.all_tasks()
        async with make() as registry:
            await registry.register(USER)
            left_open = registry.watch()
            await anext(left_open)
            async with aclosing(registry.watch(USER.service)) as closed:
                await self.until(closed, USER)
        await left_open.aclose()
        assert asyncio.all_tasks() == before

    async def test_a_reader_that_is_cancelled_leaves_the_others_alone(self, pair: Pair) -> None:
        async def read_on() -> None:
            async with aclosing(pair[1].watch(USER.service)) as snapshots:
                async for _ in snapshots:
                    started.set()

        started = asyncio.Event()
        reader = asyncio.create_task(read_on())
        async with aclosing(pair[1].watch(USER.service)) as snapshots:
            await self.until(snapshots)
            await asyncio.wait_for(started.wait(), self.patience)
            reader.cancel()
            await asyncio.wait([reader])
            await pair[0].register(USER)
            await self.until(snapshots, USER)

    # --- bad input

    @pytest.mark.parametrize(
        "wrong",
        [
            replace(USER, id=""),
            replace(USER, service=""),
            replace(USER, address=""),
            replace(USER, metadata={"lone surrogate": "\ud800"}),
            replace(USER, metadata={"large": "x" * (1 << 20)}),
        ],
        ids=["no id", "no service", "no address", "no text", "too large"],
    )
    async def test_a_record_that_cannot_be_kept_is_refused(self, pair: Pair, wrong: Instance) -> None:
        with pytest.raises(RegistryError):
            await pair[0].register(wrong)
        await pair[0].register(EMAIL)
        await self.see(pair[1], None, EMAIL)

    async def test_nonsense_in_its_url_is_refused(self, make: Callable[[], Registry]) -> None:
        kind = type(make())
        with pytest.raises(ConfigurationError):
            kind.from_url(Url("nonsense", "%%%", "a/b", options={"no-such-option": "1"}))

    async def test_its_location_is_text(self, make: Callable[[], Registry]) -> None:
        async with make() as registry:
            assert isinstance(registry.location, str)


def _id(instance: Instance) -> str:
    return instance.id
