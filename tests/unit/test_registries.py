"""What each registry of ketch's own does beyond the suite: its URL, its file, its name."""

import asyncio
import threading
from contextlib import aclosing
from pathlib import Path

import pytest

from ketch.errors import ConfigurationError, RegistryError
from ketch.registries.local import LocalRegistry
from ketch.registries.memory import MemoryRegistry, _spaces
from ketch.registries.record import MAX_RECORD, decode, encode
from ketch.registries.static import StaticRegistry
from ketch.registry import Instance
from ketch.url import Url

ONE = Instance("svc", "one", "h:1")


async def seen(registry, name=None):
    async with aclosing(registry.watch(name)) as snapshots:
        return await anext(snapshots)


# --- static


async def test_static_takes_names_with_addresses_from_its_url():
    url = Url.parse(
        "static://?go.micro.srv.user=127.0.0.1:5001,%20[::1]:5002&shippy.user.v1.UserService=unix:/run/u.sock"
    )
    async with StaticRegistry.from_url(url) as registry:
        users = await seen(registry, "go.micro.srv.user")
        assert [instance.address for instance in users] == ["127.0.0.1:5001", "[::1]:5002"]
        (by_contract,) = await seen(registry, "shippy.user.v1.UserService")
        assert by_contract.address == "unix:/run/u.sock"
        assert len({instance.id for instance in await seen(registry)}) == 3
        assert registry.location == "go.micro.srv.user, shippy.user.v1.UserService"


async def test_static_takes_instances_from_a_file(tmp_path):
    file = tmp_path / "instances.json"
    file.write_text(
        '[{"service": "svc", "address": "h:1"},'
        ' {"service": "svc", "address": "h:2", "id": "two", "version": "2", "contracts": ["a.B"],'
        '  "metadata": {"transport": "grpc"}, "later": [1]}]'
    )
    async with StaticRegistry.from_url(Url.parse(f"static://{file}")) as registry:
        assert await seen(registry, "svc") == (
            Instance("svc", "svc@h:1", "h:1"),
            Instance("svc", "two", "h:2", "2", ("a.B",), {"transport": "grpc"}),
        )
        assert registry.location == str(file)


@pytest.mark.parametrize(
    "text", ["", "{}", "[1]", '[{"service": "svc"}]', '[{"service": "", "address": "h:1"}]', "[", "\xff"]
)
async def test_static_names_the_file_that_it_cannot_understand(tmp_path, text):
    file = tmp_path / "instances.json"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(RegistryError, match=str(file)):
        await StaticRegistry.from_url(Url.parse(f"static://{file}")).open()


async def test_static_names_the_file_that_is_not_there(tmp_path):
    with pytest.raises(RegistryError, match=rf"{tmp_path}/none.json can't be read: No such file"):
        await StaticRegistry.from_url(Url.parse(f"static://{tmp_path}/none.json")).open()


@pytest.mark.parametrize(
    "text",
    [
        "static://127.0.0.1:5001",
        "static:///file.json?a=h:1",
        "static://?svc=",
        "static://?svc=h:1,,h:2",
        "static://?=h:1",
    ],
)
def test_static_refuses_a_url_that_leaves_something_out(text):
    with pytest.raises(ConfigurationError, match="static"):
        StaticRegistry.from_url(Url.parse(text))


async def test_static_shows_own_instances_to_its_own_object_only():
    async with StaticRegistry() as one, StaticRegistry() as other:
        await one.register(ONE)
        assert await seen(one) == (ONE,)
        assert await seen(other) == ()


# --- memory


async def test_memory_is_shared_by_name():
    same_name = MemoryRegistry.from_url(Url.parse("memory://a"))
    async with MemoryRegistry("a") as one, same_name as same, MemoryRegistry("b") as other:
        await one.register(ONE)
        assert await seen(same) == (ONE,)
        assert await seen(other) == ()


async def test_memory_forgets_a_name_with_its_last_open_object():
    async with MemoryRegistry("gone"):
        assert "gone" in _spaces
    assert "gone" not in _spaces


async def test_memory_pushes_changes_without_a_pause():
    async with MemoryRegistry("push") as registry, aclosing(registry.watch()) as snapshots:
        await anext(snapshots)
        waiting = asyncio.ensure_future(anext(snapshots))
        await asyncio.sleep(0)
        await registry.register(ONE)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert waiting.done()


async def test_memory_is_shared_by_threads_with_event_loops_of_their_own():
    async def elsewhere():
        async with MemoryRegistry("threads") as registry, aclosing(registry.watch("answer")) as snapshots:
            await registry.register(ONE)
            while not await anext(snapshots):
                pass

    async with MemoryRegistry("threads") as registry, aclosing(registry.watch("svc")) as snapshots:
        assert await anext(snapshots) == ()
        thread = threading.Thread(target=asyncio.run, args=(elsewhere(),))
        thread.start()
        async with asyncio.timeout(15):
            assert await anext(snapshots) == (ONE,)
            await registry.register(Instance("answer", "two", "h:2"))
            assert await anext(snapshots) == ()
        thread.join()


async def test_memory_forgets_what_was_left_open_in_a_loop_that_is_closed():
    async def leave_open():
        left = MemoryRegistry("dead")
        await left.open()
        await left.register(ONE)
        return left

    left = await asyncio.to_thread(asyncio.run, leave_open())
    async with MemoryRegistry("dead") as registry:
        assert await seen(registry) == ()
        await left.close()
        await registry.register(ONE)
        assert await seen(registry) == (ONE,)


async def test_memory_is_not_changed_by_who_changes_what_was_registered():
    metadata = {"a": "b"}
    async with MemoryRegistry("copy") as registry:
        await registry.register(Instance("svc", "one", "h:1", metadata=metadata))
        metadata["a"] = "c"
        (instance,) = await seen(registry)
        assert instance.metadata == {"a": "b"}


@pytest.mark.parametrize("text", ["memory://a/b", "memory://a?x=1"])
def test_memory_refuses_what_it_would_ignore(text):
    with pytest.raises(ConfigurationError):
        MemoryRegistry.from_url(Url.parse(text))


# --- local


def test_local_takes_its_directory_from_the_url():
    registry = LocalRegistry.from_url(Url.parse("local:///run/user/1000/ketch%20x/registry"))
    assert registry.location == "/run/user/1000/ketch x/registry"


def test_local_makes_nothing_before_it_is_opened(tmp_path):
    LocalRegistry(tmp_path / "registry")
    assert list(Path(tmp_path).iterdir()) == []


@pytest.mark.parametrize("text", ["local://relative/dir", "local://127.0.0.1", "local:///dir?poll=1"])
def test_local_refuses_what_it_would_ignore(text):
    with pytest.raises(ConfigurationError):
        LocalRegistry.from_url(Url.parse(text))


def test_local_says_on_windows_that_it_is_not_for_windows(monkeypatch):
    monkeypatch.setattr("sys.platform", "win32")
    with pytest.raises(ConfigurationError, match="Windows"):
        LocalRegistry.from_url(Url.parse("local"))


# --- records


def test_a_record_of_the_largest_size_is_kept_and_one_byte_more_is_refused():
    room = MAX_RECORD - len(encode(Instance("svc", "one", "h:1", metadata={"k": ""})))
    largest = Instance("svc", "one", "h:1", metadata={"k": "x" * room})
    assert decode(encode(largest)) == largest
    with pytest.raises(RegistryError, match="shorten its metadata"):
        encode(Instance("svc", "one", "h:1", metadata={"k": "x" * (room + 1)}))


@pytest.mark.parametrize("wrong", [{"k": 5}, {"k": None}])
def test_metadata_that_is_no_text_is_refused_where_it_is_registered(wrong):
    with pytest.raises(RegistryError, match="'one' can't be registered"):
        encode(Instance("svc", "one", "h:1", metadata=wrong))
