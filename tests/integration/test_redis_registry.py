"""Redis as a plain client sees it, and what becomes of a registry whose server forgets, refuses or is told nonsense."""

import asyncio
import json
import logging
import os
from contextlib import AsyncExitStack, aclosing, asynccontextmanager

import pytest
import pytest_asyncio
import redis.asyncio as plain_redis

from ketch.errors import ConfigurationError, RegistryError
from ketch.registries.redis import RedisRegistry
from ketch.registries.redis.listening import _MOST_WAITING
from ketch.registry import Instance
from ketch.testing.registries import OutageSuite
from ketch.testing.servers import redis_server
from ketch.url import Url

pytestmark = pytest.mark.xdist_group("redis-registry")

USER = Instance("go.micro.srv.user", "user-1", "127.0.0.1:5001", contracts=("shippy.user.v1.UserService",))
EMAIL = Instance("go.micro.srv.email", "email-1", "127.0.0.1:5002")

suite = OutageSuite()
prefixes = iter(range(1_000_000))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server():
    try:
        async with redis_server(keeps=False) as running:
            yield running
    except RuntimeError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.fixture
def prefix():
    return f"own-{next(prefixes)}"


@pytest.fixture
def url(server, prefix):
    return f"{server.url}?prefix={prefix}&ttl=2&timeout=1"


@pytest.fixture
async def plain(server):
    client = plain_redis.from_url(server.url, decode_responses=True)
    yield client
    await client.aclose()


def at(url):
    return RedisRegistry.from_url(Url.parse(url))


# --- what an operator sees, and does


async def test_an_operator_reads_the_records_with_plain_commands(url, prefix, plain):
    async with at(url) as registry:
        await registry.register(USER)
        shelves = sorted([key async for key in plain.scan_iter(f"{{{prefix}:*}}:records")])
        assert shelves == [
            f"{{{prefix}:all}}:records",
            f"{{{prefix}:contract:shippy.user.v1.UserService}}:records",
            f"{{{prefix}:service:go.micro.srv.user}}:records",
        ]
        for shelf in shelves:
            record = json.loads(await plain.hget(shelf, "user-1"))
            assert record["address"] == USER.address
            expires = await plain.zscore(shelf.replace(":records", ":expires"), "user-1")
            seconds, micros = await plain.time()
            assert 0 < expires - (seconds * 1000 + micros / 1000) <= 2000
    assert [key async for key in plain.scan_iter(f"{{{prefix}:*}}:records")] == []


async def test_keys_go_by_themselves_when_nobody_looks_any_more(url, prefix, plain):
    async with at(url) as registry:
        await registry.register(USER)
        async for key in plain.scan_iter(f"{{{prefix}:*"):
            assert 60_000 < await plain.pttl(key) <= 70_000


async def test_what_has_run_out_is_told_to_all_by_whoever_asks_first(url, prefix, plain):
    """So no watcher waits for its own turn to ask."""
    async with at(url) as registry, aclosing(registry.watch("svc")) as snapshots, plain.pubsub() as listener:
        await suite.until(snapshots)
        await listener.subscribe(f"{prefix}:service:svc")
        shelf = f"{{{prefix}:service:svc}}"
        async with at(url) as other:
            await other.register(Instance("svc", "id", "h:1"))
            await suite.until(snapshots, Instance("svc", "id", "h:1"))
            session, other._session = other._session, None  # it dies
            await session._listening.close()
            await session.upkeep._stop()
            await session._store.close()
        await suite.until(snapshots)
        assert await plain.exists(f"{shelf}:records") == 0
        heard = []
        while len(heard) < 2:
            message = await listener.get_message(ignore_subscribe_messages=True, timeout=5)
            if message is not None:
                heard.append(message["data"].split(" ", 2)[1:])
        assert [what[0] for what in heard] == ["+", "-"]
        assert heard[1] == ["-", "id"]
        await session.mirror.close()


async def test_renewals_tell_nobody_anything(url, prefix, plain):
    async with at(url) as registry, plain.pubsub() as listener:
        await registry.register(USER)
        await listener.psubscribe(f"{prefix}:*")
        await listener.get_message(timeout=5)
        shelf = f"{{{prefix}:all}}:expires"
        before = await plain.zscore(shelf, USER.id)
        async with asyncio.timeout(10):
            while await plain.zscore(shelf, USER.id) == before:  # noqa: ASYNC110 - a server's state
                await asyncio.sleep(0.05)
        assert await listener.get_message(timeout=0.1) is None


async def test_what_an_operator_deleted_comes_back(url, prefix, plain):
    async with at(url) as registry:
        await registry.register(USER)
        await plain.hdel(f"{{{prefix}:all}}:records", USER.id)
        await plain.delete(f"{{{prefix}:service:{USER.service}}}:records")
        await suite.see(registry, None, USER)
        await suite.see(registry, USER.service, USER)


async def test_a_server_whose_keys_were_all_deleted_is_told_again_and_watchers_go_on(url, prefix, plain, caplog):
    async with at(url) as registry, at(url) as client, aclosing(client.watch()) as snapshots:
        await registry.register(USER)
        await suite.until(snapshots, USER)
        change = asyncio.ensure_future(anext(snapshots))
        async for key in plain.scan_iter(f"{{{prefix}:*"):
            await plain.delete(key)
        await suite.troubled(client)
        await suite.calm(client)
        await suite.see(registry, None, USER)
        assert not change.done()
        await registry.deregister(USER)
        assert await asyncio.wait_for(change, 10) == ()
    assert any("missed, or the server has forgotten" in message for message in caplog.messages)


async def test_a_change_that_was_missed_is_noticed(url, prefix, plain):
    """Such as one that a server published before it was replaced by another."""
    async with at(url) as registry, at(url) as client, aclosing(client.watch()) as snapshots:
        await registry.register(USER)
        await suite.until(snapshots, USER)
        async with plain.pipeline() as quietly:
            record = json.dumps({"service": "svc", "id": "id", "address": "h:1"})
            await quietly.hset(f"{{{prefix}:all}}:records", "id", record).incr(f"{{{prefix}:all}}:version").execute()
        await suite.until(snapshots, USER, Instance("svc", "id", "h:1"))


async def test_garbage_is_passed_over_and_told_of_once(url, prefix, plain, caplog):
    shelf = f"{{{prefix}:service:svc}}:records"
    await plain.hset(shelf, mapping={"a": "no json", "b": "{}", "c": "x" * 100_000})
    await plain.hset(shelf, "d", '{"service": "other", "id": "d", "address": "h:1"}')
    await plain.hset(shelf, "e", '{"service": "svc", "id": "not e", "address": "h:1"}')
    fine = Instance("svc", "fine", "h:1")
    async with at(url) as registry, aclosing(registry.watch("svc")) as snapshots:
        await suite.until(snapshots)
        for change in ("", "hello", "1 2 3", "9 + soon {}", "x + 1 {}", "9" * 5000 + " - a"):
            await plain.publish(f"{prefix}:service:svc", change)
        await registry.register(fine)
        await suite.until(snapshots, fine)
        await suite.see(registry, "svc", fine)
        assert registry.trouble == ""
    told = [message for message in caplog.messages if "passed over" in message]
    assert len(told) == len(set(told)) >= 8


async def test_who_is_behind_by_too_much_reads_anew(url, prefix, plain):
    latest = Instance("svc", "id", "h:1")
    async with at(url) as registry, at(url) as other, aclosing(registry.watch("svc")) as snapshots:
        await suite.until(snapshots)
        ear = registry._session._listening._ears[f"{prefix}:service:svc"][0]
        for _ in range(_MOST_WAITING + 1):
            ear.hear(f"{prefix}:service:svc", b"1 - x")
        await other.register(latest)
        await suite.until(snapshots, latest)


async def test_prefixes_are_worlds_of_their_own(server, prefix):
    async with at(f"{server.url}?prefix={prefix}") as one, at(f"{server.url}?prefix={prefix}:service") as two:
        await one.register(USER)
        await two.register(EMAIL)
        await suite.see(one, None, USER)
        await suite.see(two, None, EMAIL)
        await suite.see(one, EMAIL.service)


async def test_leaving_does_not_take_away_what_a_successor_registered_under_the_same_id(url):
    moved = Instance(USER.service, USER.id, "127.0.0.1:6001")
    async with at(url) as successor, aclosing(successor.watch(USER.service)) as snapshots:
        async with at(url) as leaving:
            await leaving.register(USER)
            await successor.register(moved)
        await suite.until(snapshots, moved)
        await suite.see(successor, USER.service, moved)


async def test_processes_that_are_killed_at_once_all_go(url):
    crowd = [Instance("crowd", f"id-{number}", "127.0.0.1:7001") for number in range(4)]
    async with at(url) as registry, aclosing(registry.watch("crowd")) as snapshots, AsyncExitStack() as stack:
        starting = (stack.enter_async_context(suite.registrant(url, instance)) for instance in crowd)
        processes = await asyncio.gather(*starting)
        await suite.until(snapshots, *crowd)
        for process in processes:
            process.kill()
        await suite.until(snapshots)


# --- who may


@asynccontextmanager
async def guarded():
    options = (
        *("--user", "root", "on", ">s3cret-root", "~*", "&*", "+@all"),
        *("--user", "app", "on", ">s3cret-app", "~{ketch:*", "&ketch:*", "+@all", "-@dangerous"),
        *("--user", "blind", "on", ">s3cret-blind", "~*", "resetchannels", "+@all"),
        *("--user", "default", "off"),
    )
    async with redis_server(options=options) as running:
        yield running


async def test_a_server_with_users(caplog):
    caplog.set_level(logging.DEBUG)
    async with guarded() as server:
        address = server.url.removeprefix("redis://")
        async with at(f"redis://app:s3cret-app@{address}?ttl=2") as registry:
            await registry.register(USER)
            await suite.see(registry, None, USER)
            assert "s3cret" not in registry.location
        async with at(f"redis://app:s3cret-app@{address}?prefix=other") as registry:
            with pytest.raises(RegistryError, match="NOPERM"):
                await registry.register(USER)
        async with at(f"redis://blind:s3cret-blind@{address}") as registry:
            with pytest.raises(RegistryError, match="NOPERM"):
                await anext(registry.watch())
        with pytest.raises(RegistryError, match="credentials") as refused:
            await at(f"redis://app:s3cret-wrong@{address}").open()
        assert "s3cret" not in str(refused.value)
    assert "s3cret" not in caplog.text


@pytest.mark.parametrize(
    "wrong",
    [
        "redis://h:0",
        "redis://h:1,h:2",
        "redis://h:1/path",
        "redis://h:1?prefix=",
        "redis://h:1?prefix=a{b}",
        "redis://h:1?ttl=0",
        "redis://h:1?timeout=soon",
        "redis://h:1?nonsense=1",
    ],
)
def test_a_wrong_url_is_refused(wrong):
    with pytest.raises(ConfigurationError):
        at(wrong)


def test_the_usual_prefix_and_time_to_live():
    registry = at("redis://127.0.0.1")
    assert registry.location == "127.0.0.1:6379 ketch"
    assert registry.lag == 15
