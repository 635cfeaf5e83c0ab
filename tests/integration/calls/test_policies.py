"""Calls by policy, over real connections: tried again, hedged, left alone, shared out."""

import asyncio
import contextlib
from collections import Counter

import pytest

from ketch import context
from ketch.errors import (
    Aborted,
    DeadlineExceeded,
    NotFound,
    ResourceExhausted,
    Unavailable,
    Unreachable,
)
from ketch.policy import CallPolicy
from ketch.registry import Instance
from ketch.transport import Route
from ketch.transports.grpc import GrpcTransport

from .store import StoreStub, stub_of

# --- another try


async def test_an_idempotent_call_that_a_server_could_not_take_is_made_again_elsewhere(servers, clients):
    bad, good = await servers("bad", "good")
    bad.fail(Unavailable("overloaded"))
    stub = await stub_of(await clients(hedge="off"), [bad, good])
    assert [await stub.get("x") for _ in range(4)] == ["good"] * 4
    assert bad.seen


async def test_a_call_that_is_not_idempotent_is_made_once(servers, clients):
    (bad,) = await servers("bad")
    bad.fail(Unavailable("overloaded"))
    stub = await stub_of(await clients(), [bad])
    with pytest.raises(Unavailable, match="overloaded"):
        await stub.put("x")
    assert len(bad.seen) == 1


async def test_a_policy_may_say_that_a_method_is_idempotent_or_is_not(registry, servers, clients):
    (bad,) = await servers("bad")
    bad.fail(Unavailable("overloaded"))
    client = await clients(idempotent=False)
    stub = await stub_of(client, [bad])
    with pytest.raises(Unavailable):
        await stub.get("x")
    assert len(bad.seen) == 1
    own = client.stub(StoreStub, "store", policy=CallPolicy(idempotent=True, hedge="off", backoff=0))
    with pytest.raises(Unavailable):
        await own.put("x")
    assert len(bad.seen) == 4


async def test_there_are_so_many_attempts_and_the_last_error_is_told(servers, clients):
    (bad,) = await servers("bad")
    bad.fail(Unavailable("overloaded"))
    stub = await stub_of(await clients(attempts=4, backoff=0.001), [bad])
    with pytest.raises(Unavailable, match="overloaded"):
        await stub.get("x")
    assert len(bad.seen) == 4


async def test_other_errors_are_answers_unless_the_policy_says_otherwise(servers, clients):
    (server,) = await servers("server")
    stub = await stub_of(await clients(retry_on=("UNAVAILABLE", "ABORTED"), backoff=0), [server])
    server.fail(NotFound("no x"))
    with pytest.raises(NotFound):
        await stub.get("x")
    assert len(server.seen) == 1
    server.fail(Aborted("lost a race"))
    with pytest.raises(Aborted):
        await stub.get("x")
    assert len(server.seen) == 4


async def test_retries_are_bounded_by_their_budget(servers, clients):
    (bad,) = await servers("bad")
    bad.fail(Unavailable("overloaded"))
    stub = await stub_of(await clients(backoff=0, hedge="off", breaker=0.0), [bad])
    for _ in range(100):
        with pytest.raises(Unavailable):
            await stub.get("x")
    assert len(bad.seen) <= 100 + 10 + 20 + 1


async def test_a_server_may_say_that_no_other_try_is_wanted(servers, clients):
    (bad,) = await servers("bad")
    bad.fail(Unavailable("full", metadata={"grpc-retry-pushback-ms": "-1"}))
    stub = await stub_of(await clients(backoff=0), [bad])
    with pytest.raises(Unavailable):
        await stub.get("x")
    assert len(bad.seen) == 1


async def test_a_server_may_say_when_another_try_is_wanted(servers, clients):
    (bad,) = await servers("bad")
    bad.fail(Unavailable("full", metadata={"grpc-retry-pushback-ms": "1"}))
    stub = await stub_of(await clients(backoff=60), [bad])
    with pytest.raises(Unavailable):
        await stub.get("x")
    assert len(bad.seen) == 3


async def test_no_try_is_waited_for_beyond_the_deadline(servers, clients):
    (bad,) = await servers("bad")
    bad.fail(Unavailable("full", metadata={"grpc-retry-pushback-ms": "60000"}))
    stub = await stub_of(await clients(), [bad])
    with pytest.raises(Unavailable):
        await stub.get("x", timeout=2)


# --- hedging


async def test_a_call_that_takes_too_long_is_made_at_another_instance_and_the_first_is_called_off(servers, clients):
    slow, quick = await servers("slow", "quick")
    slow.answer = slow.hang
    stub = await stub_of(await clients(hedge=0.05), [slow, quick])
    with context.ReplyMetadata() as received:
        for _ in range(2):
            assert await stub.get("x") == "quick"
            assert received.trailers["from"] == "quick"
    await asyncio.wait_for(slow.cancelled.wait(), 5)


async def test_a_call_that_is_not_idempotent_is_never_made_twice(servers, clients):
    slow, other = await servers("slow", "other")
    slow.answer = other.answer = slow.hang
    stub = await stub_of(await clients(hedge=0.01), [slow, other])
    with pytest.raises(DeadlineExceeded):
        await stub.put("x", timeout=0.2)
    assert len(slow.seen) + len(other.seen) == 1


async def test_an_error_that_is_an_answer_counts_from_the_second_instance_too(servers, clients):
    slow, quick = await servers("slow", "quick")
    slow.answer = slow.hang
    quick.fail(NotFound("no x"))
    stub = await stub_of(await clients(hedge=0.02), [slow, quick])
    for _ in range(2):
        with pytest.raises(NotFound):
            await stub.get("x")


async def test_where_the_second_has_no_answer_either_the_first_one_counts(servers, clients):
    first, second = await servers("first", "second")
    release = asyncio.Event()

    async def late(request):
        await release.wait()
        return b'"late"'

    async def unavailable(request):
        release.set()
        raise Unavailable("no")

    first.answer = late
    second.answer = unavailable
    stub = await stub_of(await clients(hedge=0.02, selector=first_of), [first, second])
    assert await stub.get("x") == "late"
    assert second.seen


async def test_where_the_first_fails_while_the_second_is_asked_that_one_counts(servers, clients):
    first, second = await servers("first", "second")
    asked = asyncio.Event()

    async def fail_then(request):
        await asked.wait()
        raise Unavailable("no")

    async def late(request):
        asked.set()
        await asyncio.sleep(0.05)
        return b'"second"'

    first.answer = fail_then
    second.answer = late
    stub = await stub_of(await clients(hedge=0.02, selector=first_of), [first, second])
    assert await stub.get("x") == "second"
    assert len(second.seen) == 1


def first_of():
    """Select "first" where it is among the candidates."""
    return lambda crew, key: next((one for one in crew if one.instance.id == "first"), crew[0])


async def test_a_caller_who_gives_up_calls_both_off(servers, clients):
    one, other = await servers("one", "other")
    one.answer, other.answer = one.hang, other.hang
    stub = await stub_of(await clients(hedge=0.02), [one, other])
    calling = asyncio.create_task(stub.get("x"))
    async with asyncio.timeout(5):
        while not (one.seen and other.seen):  # noqa: ASYNC110 - a test's wait
            await asyncio.sleep(0.01)
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    await asyncio.wait_for(asyncio.gather(one.cancelled.wait(), other.cancelled.wait()), 5)


async def test_a_timeout_around_a_hedged_call_is_a_timeout(servers, clients):
    one, other = await servers("one", "other")
    one.answer, other.answer = one.hang, other.hang
    stub = await stub_of(await clients(hedge=0.02), [one, other])
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await stub.get("x")
    assert asyncio.current_task().cancelling() == 0


async def test_a_hedged_call_leaves_its_task_as_it_was(servers, clients):
    slow, quick = await servers("slow", "quick")
    slow.answer = slow.hang
    stub = await stub_of(await clients(hedge=0.02), [slow, quick])
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        calls = [group.create_task(stub.get("x")) for _ in range(8)]
    assert {call.result() for call in calls} == {"quick"}
    assert asyncio.current_task().cancelling() == 0
    await asyncio.sleep(0)  # a cancellation that was left over would strike here


# --- left alone


async def test_an_instance_that_keeps_failing_is_left_alone_and_comes_back_when_it_answers(servers, clients):
    bad, good = await servers("bad", "good")
    bad.fail(Unavailable("broken"))
    client = await clients(eject_time=0.05, attempts=1)
    stub = await stub_of(client, [bad, good])
    for _ in range(12):
        with contextlib.suppress(Unavailable):
            await stub.put("x")
    assert len(bad.seen) == 5
    bad.answer = bad.echo
    async with asyncio.timeout(5):
        while any(one.out for one in client.candidates("store")):  # noqa: ASYNC110 - a test's wait
            await asyncio.sleep(0.01)
    assert {await stub.put("x") for _ in range(4)} == {"bad", "good"}


async def test_an_instance_that_hangs_is_left_alone_until_it_answers(registry, servers, clients):
    frozen, good = await servers("frozen", "good")
    frozen.answer = frozen.hang
    client = await clients(hedge=0.02, eject_time=0.05)
    stub = await stub_of(client, [frozen, good])
    for _ in range(20):
        assert await stub.get("x") == "good"
    assert len(frozen.seen) <= 6


async def test_at_most_half_are_left_alone_for_failing(servers, clients):
    crew = await servers(*"abcd")
    for server in crew:
        server.fail(Unavailable("broken"))
    client = await clients(attempts=1, eject_time=60.0, breaker=0.0)
    stub = await stub_of(client, crew)
    for _ in range(60):
        with contextlib.suppress(Unavailable):
            await stub.put("x")
    assert sum(one.out for one in client.candidates("store")) == 2


async def test_where_all_are_unreachable_they_are_tried_all_the_same(registry, servers, clients):
    (one, two) = await servers("one", "two")
    client = await clients(eject_time=60.0)
    stub = await stub_of(client, [one, two])
    for server in (one, two):
        await server.listener.stop(0)
    with pytest.raises(Unavailable):
        await stub.put("x")
    assert all(candidate.out for candidate in client.candidates("store"))
    again = await GrpcTransport().listen(one.instance.address, {"/a.Store/Put": Route(unary=one.serve)})
    try:
        assert await stub.put("x") == "one"
    finally:
        await again.stop(0)


async def test_errors_that_are_answers_leave_an_instance_in(servers, clients):
    crew = await servers("a", "b")
    for server in crew:
        server.fail(NotFound("no x"))
    client = await clients()
    stub = await stub_of(client, crew)
    for _ in range(30):
        with pytest.raises(NotFound):
            await stub.put("x")
    assert not any(one.out for one in client.candidates("store"))


# --- fail at once, wait, share out


async def test_calls_fail_at_once_when_nobody_answers_and_go_on_when_somebody_does(servers, clients):
    (bad,) = await servers("bad")
    bad.fail(Unavailable("broken"))
    stub = await stub_of(await clients(attempts=1), [bad])
    for _ in range(40):
        with pytest.raises(Unavailable):
            await stub.put("x")
    assert len(bad.seen) == 20
    with pytest.raises(Unreachable, match="too many calls had no answer"):
        await stub.put("x")
    bad.answer = bad.echo
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(Unreachable):
                assert await stub.put("x") == "bad"
                break
            await asyncio.sleep(0.05)
    assert [await stub.put("x") for _ in range(5)] == ["bad"] * 5


async def test_no_more_calls_are_in_flight_than_a_bulkhead_lets_in(servers, clients):
    (server,) = await servers("server")
    running, most, release = 0, 0, asyncio.Event()

    async def work(request):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await release.wait()
        running -= 1
        return b'"done"'

    server.answer = work
    stub = await stub_of(await clients(max_in_flight=3, max_waiting=4), [server])
    calls = [asyncio.create_task(stub.put("x")) for _ in range(10)]
    async with asyncio.timeout(5):
        while running < 3:  # noqa: ASYNC110 - a test's wait
            await asyncio.sleep(0.01)
    release.set()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert Counter(type(result) for result in results) == {str: 7, ResourceExhausted: 3}
    assert most == 3


async def test_the_calls_of_a_key_go_to_one_instance(servers, clients):
    crew = await servers(*"abcde")
    stub = await stub_of(await clients(selector="consistent_hash", key=lambda request: request), crew)
    placed = {f"user-{n}": await stub.get(f"user-{n}") for n in range(30)}
    assert len(set(placed.values())) > 1
    assert {key: await stub.put(key) for key in placed} == placed
    by_metadata = await clients(selector="consistent_hash", key="metadata.user")
    stub = await stub_of(by_metadata, crew)
    assert {key: await stub.put("x", metadata={"user": key}) for key in placed} == placed


async def test_a_version_gets_its_share(servers, clients):
    old = await servers("old-1", "old-2", version="1")
    new = await servers("new", version="2")
    stub = await stub_of(await clients(split={"version": {"1": 80, "2": 20}}), [*old, *new])
    counts = Counter([await stub.put("x") for _ in range(400)])
    assert 40 < counts["new"] < 130


async def test_each_instance_may_have_several_connections(servers, clients):
    (server,) = await servers("server")
    client = await clients(connections=3)
    stub = await stub_of(client, [server])
    assert [await stub.put("x") for _ in range(6)] == ["server"] * 6
    assert len({one.channel for one in client.candidates("store")}) == 3


async def test_where_no_instance_fits_that_is_said(servers, clients):
    await servers("a")
    stub = (await clients(match={"zone": "moon"})).stub(StoreStub, "store")
    with pytest.raises(Unreachable, match=r"fits \{'zone': 'moon'\}"):
        await stub.put("x")


async def test_an_idempotent_stream_of_replies_is_begun_again_until_the_first_reply(registry, clients):
    seen = []

    async def answer(name, request, stream):
        body = await stream.receive()
        seen.append(name)
        if name == "bad":
            raise Unavailable("overloaded")
        await stream.send(body)
        if body == b'"twice"':
            raise Unavailable("after a reply")

    async with contextlib.AsyncExitStack() as stack:
        for name in ("bad", "good"):
            routes = {"/a.Store/List": Route(stream=lambda request, stream, name=name: answer(name, request, stream))}
            listener = await GrpcTransport().listen("127.0.0.1:0", routes)
            stack.push_async_callback(listener.stop, 0)
            await registry.register(Instance("store", name, listener.address, contracts=("a.Store",)))
        stub = await stub_of(await clients(backoff=0), ["bad", "good"])
        assert [[text async for text in stub.list("x")] for _ in range(2)] == [["x"], ["x"]]
        assert {"bad", "good"} == set(seen)
        with pytest.raises(Unavailable, match="after a reply"):
            [text async for text in stub.list("twice")]
