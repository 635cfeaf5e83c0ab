"""Request and reply over a broker: typed both ways, errors carried back."""

import asyncio
from dataclasses import dataclass

import pytest

from ketch import Message, NotFound, RequestTopic, Service, Topic, context, testing
from ketch.brokers.memory import MemoryBroker
from ketch.errors import ConfigurationError, DeadlineExceeded, InvalidArgument, NotRunning, Unavailable, Unknown
from ketch.request import REPLY_TO
from ketch.testing.servers import nats_server


@dataclass
class Find:
    id: int


@dataclass
class User:
    id: int
    name: str


find = RequestTopic("user.find", Find, User)


def make(**terms):
    service = Service("users")

    @service.reply(find, **terms)
    async def find_user(request: Find) -> User:
        if request.id == 404:
            raise NotFound(f"no user {request.id}")
        if request.id == 500:
            raise ValueError("a secret of ours")
        if request.id == 0:
            await asyncio.sleep(60)
        return User(request.id, context.current().metadata.get("tenant", "Ada"))

    return service


@pytest.fixture(params=["memory", "direct", "nats"])
async def pinned(request):
    if request.param == "nats":
        async with nats_server() as server:
            yield {"broker": server.url}
    else:
        yield {} if request.param == "memory" else {"broker": "direct"}


async def test_a_request_is_answered_typed(pinned):
    async with testing.run(make(), **pinned) as app:
        requester = await app.requester(find)
        assert await requester.request(Find(7)) == User(7, "Ada")
        assert await requester.request(Find(8), metadata={"tenant": "bbc"}) == User(8, "bbc")


async def test_what_the_handler_raises_is_raised_to_the_requester(pinned):
    async with testing.run(make(), **pinned) as app:
        requester = await app.requester(find)
        with pytest.raises(NotFound, match="no user 404"):
            await requester.request(Find(404))
        with pytest.raises(Unknown, match="ValueError") as caught:
            await requester.request(Find(500))
        assert "secret" not in str(caught.value)
        assert await requester.request(Find(1)) == User(1, "Ada")


async def test_many_requests_at_a_time_get_each_their_own_reply(pinned):
    async with testing.run(make(), **pinned) as app:
        requester = await app.requester(find)
        replies = await asyncio.gather(*(requester.request(Find(n)) for n in range(1, 200)))
    assert [reply.id for reply in replies] == list(range(1, 200))


async def test_a_request_that_nobody_answers_ends_at_its_timeout():
    async with testing.run() as app:
        requester = await app.requester(find)
        with pytest.raises(DeadlineExceeded, match=r"user\.find"):
            await requester.request(Find(1), timeout=0.02)


async def test_a_handler_that_takes_too_long_is_told_of():
    async with testing.run(make(timeout=0.02)) as app:
        requester = await app.requester(find)
        with pytest.raises(DeadlineExceeded, match="handler took too long"):
            await requester.request(Find(0), timeout=5)


async def test_a_request_that_cannot_be_decoded_is_answered_too():
    async with testing.run(make()) as app:
        requester = await app.requester(RequestTopic("user.find", dict, User))
        with pytest.raises(InvalidArgument):
            await requester.request({"id": "seven"})


async def test_one_instance_of_a_service_answers():
    answered = []
    services = []
    for n in range(3):
        service = Service("users")

        def register(service=service, n=n):
            @service.reply(find)
            async def find_user(request: Find) -> User:
                answered.append(n)
                return User(request.id, str(n))

        register()
        services.append(service)
    async with testing.run(*services) as app:
        requester = await app.requester(find)
        await asyncio.gather(*(requester.request(Find(n)) for n in range(30)))
    assert len(answered) == 30
    assert set(answered) == {0, 1, 2}


async def test_a_service_requests_of_another_while_it_runs():
    asking = Service("shop")
    requester = asking.requester(find)
    async with testing.run(make(), asking):
        assert await requester.request(Find(3)) == User(3, "Ada")
    with pytest.raises(NotRunning):
        await requester.request(Find(3))


async def test_an_event_that_wants_no_reply_is_handled_all_the_same():
    async with testing.run(make()) as app:
        replies = await app.watch(Topic("user.find.reply", Message))
        await app.publish(Topic("user.find", Find), Find(1))
        await asyncio.sleep(0.02)
        assert replies.empty()


async def test_who_waits_for_a_reply_is_told_when_its_program_stops():
    async with testing.run(make(), shutdown_grace=0.05) as app:
        requester = await app.requester(find)
        waiting = asyncio.create_task(requester.request(Find(0), timeout=60))
        await asyncio.sleep(0.02)
    with pytest.raises(Unavailable):
        await waiting


async def test_a_late_or_forged_reply_does_no_harm():
    broker = MemoryBroker("forged")
    async with testing.run(make(), broker=broker) as app:
        requester = await app.requester(find)
        await requester.request(Find(1))
        inbox = requester._shared[REPLY_TO]
        for headers in ({}, {"ketch-reply-for": "nobody"}):
            await broker.publish(Message(inbox, headers, b"\xff"))
        assert await requester.request(Find(2)) == User(2, "Ada")


def test_a_topic_is_answered_once_in_a_group():
    service = make()

    async def another(request: Find) -> User:
        return User(1, "")

    with pytest.raises(ConfigurationError, match="already"):
        service.reply(find)(another)
