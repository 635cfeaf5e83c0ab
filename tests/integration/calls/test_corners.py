"""Calls by policy: what the calls of one method share must not pass from one of them to another."""

import asyncio

import pytest

from ketch import context
from ketch.errors import ConfigurationError, DeadlineExceeded, ResourceExhausted, Unavailable
from ketch.policy import CallPolicy

from .store import StoreStub, stub_of


async def test_a_hedged_call_gets_its_own_metadata_whichever_call_was_watched_first(servers, clients):
    slow, quick = await servers("slow", "quick")
    slow.answer = slow.hang
    stub = await stub_of(await clients(hedge=0.1, selector=_slow_first), [slow, quick])

    async def ask(*, wanted):
        if not wanted:
            return await stub.get("x"), None
        with context.ReplyMetadata() as received:
            reply = await stub.get("x")
        return reply, received.trailers.get("from")

    for first, second in ((False, True), (True, False), (True, True)):
        replies = await asyncio.gather(ask(wanted=first), ask(wanted=second))
        assert replies == [("quick", "quick" if first else None), ("quick", "quick" if second else None)]


async def test_metadata_of_a_hedge_does_not_come_into_another_calls_hands(servers, clients):
    slow, quick = await servers("slow", "quick")
    asked, answered = asyncio.Event(), asyncio.Event()

    async def once_both_are_asked(request):
        if request.body == b'"kept"':
            await asked.wait()
        else:
            await asyncio.Event().wait()
        return await slow.echo(request)

    async def hedge(request):
        if request.body == b'"kept"':
            await asyncio.Event().wait()
        await answered.wait()
        return await quick.echo(request)

    slow.answer, quick.answer = once_both_are_asked, hedge
    stub = await stub_of(await clients(hedge=0.05, selector=_slow_first), [slow, quick])

    async def keep():
        with context.ReplyMetadata() as received:
            reply = await stub.get("kept")
        return reply, received

    keeping = asyncio.create_task(keep())
    await asyncio.sleep(0)
    other = asyncio.create_task(stub.get("other"))
    async with asyncio.timeout(5):
        while len(quick.seen) < 2:  # noqa: ASYNC110 - a test's wait
            await asyncio.sleep(0.01)
    asked.set()
    reply, received = await keeping
    answered.set()
    assert await other == "quick"
    assert (reply, received.trailers["from"]) == ("slow", "slow")


def _slow_first():
    return lambda crew, key: next((one for one in crew if one.instance.id == "slow"), crew[0])


@pytest.mark.parametrize("timeout", [0, -1.0])
async def test_a_call_whose_time_is_up_is_not_made_and_nobody_is_blamed(servers, clients, timeout):
    crew = await servers("a", "b")
    client = await clients()
    stub = await stub_of(client, crew)
    for method in (stub.get, stub.put):
        for _ in range(10):
            with pytest.raises(DeadlineExceeded):
                await method("x", timeout=timeout)
    assert not any(server.seen for server in crew)
    assert not any(one.failures or one.out for one in client.candidates("store"))


async def test_an_instance_is_not_blamed_for_callers_who_wait_less_than_it_takes(servers, clients):
    crew = await servers("a", "b")

    async def work(request):
        await asyncio.sleep(0.2)
        return b'"done"'

    for server in crew:
        server.answer = work
    client = await clients(eject_after=2)
    stub = await stub_of(client, crew)
    await asyncio.gather(*(stub.put("x") for _ in range(40)))
    for _ in range(8):
        with pytest.raises(DeadlineExceeded):
            await stub.put("x", timeout=0.01)
    assert not any(one.out for one in client.candidates("store"))


async def test_slow_calls_with_nobody_to_help_take_nothing_from_the_retries(servers, clients):
    (server,) = await servers("server")
    stub = await stub_of(await clients(hedge=0.001, backoff=0), [server])

    async def slow(request):
        await asyncio.sleep(0.02)
        return b'"slow"'

    server.answer = slow
    await asyncio.gather(*(stub.get("x") for _ in range(60)))
    seen = len(server.seen)

    async def second_time(request):
        if len(server.seen) == seen + 1:
            raise Unavailable("once")
        return b'"again"'

    server.answer = second_time
    assert await stub.get("x") == "again"


@pytest.mark.parametrize("told", [pytest.param("9" * 400, id="huge"), "999999999999", "x", "-5"])
async def test_a_pushback_that_makes_no_sense_ends_the_call(servers, clients, told):
    (bad,) = await servers("bad")
    bad.fail(Unavailable("full", metadata={"grpc-retry-pushback-ms": told}))
    stub = await stub_of(await clients(backoff=0, timeout=0), [bad])
    with pytest.raises(Unavailable, match="full"):
        await asyncio.wait_for(stub.get("x", timeout=None), 5)
    assert len(bad.seen) == 1


@pytest.mark.parametrize("where", ["store", "a.Store", "a.Store/Put", "", "own"])
async def test_a_key_finds_its_instance_whichever_ones_a_client_would_use_otherwise(registry, servers, clients, where):
    crew = await servers(*"abcdefgh")
    keyed = CallPolicy(selector="consistent_hash", key=lambda request: request)
    placed = []
    for _ in range(2):
        client = await clients(subset=2, selector=None, **{} if where == "own" else {"named": {where: keyed}})
        await stub_of(client, crew[:2])
        stub = client.stub(StoreStub, "store", policy=keyed if where == "own" else None)
        placed.append({key: await stub.put(key) for key in map(str, range(30))})
    assert placed[0] == placed[1]
    assert len(set(placed[0].values())) > 2


async def test_a_bulkhead_of_a_service_is_for_all_its_methods(servers, clients):
    (server,) = await servers("server")
    server.answer = server.hang
    stub = await stub_of(await clients(max_in_flight=2, max_waiting=0, hedge="off"), [server])
    calls = [asyncio.create_task(call("x")) for call in (stub.get, stub.put)]
    async with asyncio.timeout(5):
        while len(server.seen) < 2:  # noqa: ASYNC110 - a test's wait
            await asyncio.sleep(0.01)
    for call in (stub.get, stub.put):
        with pytest.raises(ResourceExhausted, match="store"):
            await call("x")
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)


async def test_a_bulkhead_of_a_method_is_its_own(servers, clients):
    (server,) = await servers("server")
    server.answer = server.hang
    client = await clients(named={"a.Store/Get": CallPolicy(max_in_flight=1, max_waiting=0)})
    stub = await stub_of(client, [server])
    call = asyncio.create_task(stub.get("x"))
    async with asyncio.timeout(5):
        while not server.seen:  # noqa: ASYNC110 - a test's wait
            await asyncio.sleep(0.01)
    with pytest.raises(ResourceExhausted):
        await stub.get("x")
    server.answer = server.echo
    assert await stub.put("x") == "server"
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)


async def test_what_all_calls_to_a_service_share_is_not_said_for_one_stub(clients):
    client = await clients()
    with pytest.raises(ConfigurationError, match="connections can't differ between calls to one service"):
        client.stub(StoreStub, "store", policy=CallPolicy(connections=4))
