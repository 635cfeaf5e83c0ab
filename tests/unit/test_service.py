"""A service's life: declared, started in order, stopped in reverse, started again."""

import asyncio
import contextlib
from dataclasses import dataclass

import pytest

from ketch import Kind, Service, Topic, context, testing
from ketch.brokers.memory import MemoryBroker
from ketch.errors import (
    BrokerError,
    BrokerUnavailable,
    CapabilityError,
    CodecError,
    ConfigurationError,
    HandlerError,
    NotRunning,
    RegistryError,
)
from ketch.registries.memory import MemoryRegistry


@dataclass
class User:
    name: str


user_created = Topic("user.created", User)
user_deleted = Topic("user.deleted", User)


async def test_an_event_reaches_its_handler_typed():
    service = Service("email")
    got: asyncio.Queue[User] = asyncio.Queue()

    @service.subscribe(user_created)
    async def welcome(user: User) -> None:
        await got.put(user)

    async with testing.run(service) as app:
        await app.publish(user_created, User("Ada"))
        assert await asyncio.wait_for(got.get(), 5) == User("Ada")


async def test_metadata_travels_as_headers_and_reaches_the_handlers_context():
    service = Service("email")
    seen: asyncio.Queue[context.Context] = asyncio.Queue()

    @service.subscribe(user_created)
    async def welcome(user: User) -> None:
        await seen.put(context.current())

    async with testing.run(service) as app:
        await app.publish(user_created, User("Ada"), metadata={"X-Request-Id": "7"})
        here = await asyncio.wait_for(seen.get(), 5)
    assert dict(here.metadata) == {"x-request-id": "7"}
    assert here.message is not None
    assert (here.message.type, here.message.source, here.attempt) == ("User", "ketch.test", 1)
    assert here.message.id
    assert here.message.time.endswith("Z")


async def test_metadata_of_the_event_in_hand_is_not_forwarded():
    relay = Service("relay")
    out = relay.publisher(user_deleted)

    @relay.subscribe(user_created)
    async def pass_on(user: User) -> None:
        await out.publish(user)

    async with testing.run(relay) as app:
        seen: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        await app.client.connect_broker()
        subscription = await app.client.options.broker.subscribe("user.deleted", group=None)
        await app.publish(user_created, User("Ada"), metadata={"token": "secret"})
        [delivery] = await asyncio.wait_for(subscription.receive(), 5)
        await seen.put(dict(delivery.message.headers))
        await subscription.close()
    assert "token" not in await seen.get()


async def test_a_handler_that_raises_does_not_stop_the_next_event(caplog):
    service = Service("email")
    got: asyncio.Queue[str] = asyncio.Queue()

    @service.subscribe(user_created)
    async def welcome(user: User) -> None:
        if user.name == "bad":
            raise RuntimeError("the mail server is on fire")
        await got.put(user.name)

    async with testing.run(service) as app:
        publisher = await app.publisher(user_created)
        for name in ("bad", "good"):
            await publisher.publish(User(name))
        assert await asyncio.wait_for(got.get(), 5) == "good"
    assert "the mail server is on fire" in caplog.text


async def test_a_handler_that_cancels_itself_does_not_end_the_consumer_in_silence(caplog):
    service = Service("email")
    got: asyncio.Queue[str] = asyncio.Queue()

    @service.subscribe(user_created)
    async def welcome(user: User) -> None:
        if user.name == "bad":
            raise asyncio.CancelledError
        await got.put(user.name)

    async with testing.run(service) as app:
        for name in ("bad", "good"):
            await app.publish(user_created, User(name))
        assert await asyncio.wait_for(got.get(), 5) == "good"
    assert "CancelledError" in caplog.text


async def test_a_hanging_handler_is_cut_off_by_its_timeout(caplog):
    service = Service("email")
    got: asyncio.Queue[str] = asyncio.Queue()

    @service.subscribe(user_created, timeout=0.05)
    async def welcome(user: User) -> None:
        if user.name == "slow":
            await asyncio.Event().wait()
        await got.put(user.name)

    async with testing.run(service) as app:
        publisher = await app.publisher(user_created)
        for name in ("slow", "quick"):
            await publisher.publish(User(name))
        assert await asyncio.wait_for(got.get(), 5) == "quick"
    assert "TimeoutError" in caplog.text


async def test_with_concurrency_one_handler_does_not_wait_for_another():
    service = Service("email")
    both = asyncio.Barrier(2)
    done: asyncio.Queue[str] = asyncio.Queue()

    @service.subscribe(user_created, concurrency=2)
    async def welcome(user: User) -> None:
        await both.wait()
        await done.put(user.name)

    async with testing.run(service) as app:
        publisher = await app.publisher(user_created)
        for name in ("a", "b"):
            await publisher.publish(User(name))
        assert {await asyncio.wait_for(done.get(), 5) for _ in range(2)} == {"a", "b"}


async def test_stopping_waits_for_handlers_which_may_still_publish():
    service = Service("email")
    out = service.publisher(user_deleted)
    started, release = asyncio.Event(), asyncio.Event()

    @service.subscribe(user_created)
    async def welcome(user: User) -> None:
        started.set()
        await release.wait()
        await out.publish(user)

    listener = Service("listener")
    heard: asyncio.Queue[User] = asyncio.Queue()

    @listener.subscribe(user_deleted)
    async def hear(user: User) -> None:
        await heard.put(user)

    async with testing.run(listener) as app:
        running = service.started(_options_like(app, service))
        await running.__aenter__()
        await app.publish(user_created, User("Ada"))
        await asyncio.wait_for(started.wait(), 5)
        stopping = asyncio.create_task(running.__aexit__(None, None, None))
        await asyncio.sleep(0.05)
        assert not stopping.done()
        release.set()
        await asyncio.wait_for(stopping, 5)
        assert await asyncio.wait_for(heard.get(), 5) == User("Ada")


def _options_like(app, service):
    options = app.client.options
    world = {"broker": f"memory://{options.broker.location}", "registry": options.registry, "transport": "memory"}
    return testing.runner.build(testing.runner.read((), {}), {**world, "server_name": service.name})


async def test_a_handler_that_outlasts_the_grace_period_is_cancelled_and_reported(caplog):
    service = Service("email")
    started = asyncio.Event()

    @service.subscribe(user_created)
    async def welcome(user: User) -> None:
        started.set()
        await asyncio.Event().wait()

    async with testing.run(service, shutdown_grace=0.05) as app:
        await app.publish(user_created, User("Ada"))
        await asyncio.wait_for(started.wait(), 5)
    assert "not handled within the grace period" in caplog.text


async def test_a_handler_that_will_not_be_cancelled_does_not_stop_the_stop(caplog):
    service = Service("email")
    started, release = asyncio.Event(), asyncio.Event()

    @service.subscribe(user_created)
    async def welcome(user: User) -> None:
        started.set()
        while not release.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await release.wait()

    async with testing.run(service, shutdown_grace=0.05) as app:
        await app.publish(user_created, User("Ada"))
        await asyncio.wait_for(started.wait(), 5)
    assert "doesn't let itself be cancelled" in caplog.text
    release.set()


async def test_after_the_grace_period_no_further_event_is_begun():
    service = Service("email")
    started, begun = asyncio.Event(), []

    @service.subscribe(user_created)
    async def welcome(user: User) -> None:
        begun.append(user.name)
        started.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()

    async with testing.run(service, shutdown_grace=0.05) as app:
        publisher = await app.publisher(user_created)
        for name in ("first", "second", "third"):
            await publisher.publish(User(name))
        await asyncio.wait_for(started.wait(), 5)
    assert begun == ["first"]


async def test_a_stop_that_is_cancelled_leaves_no_handler_behind():
    service = Service("email")
    started, ended = asyncio.Event(), []

    @service.subscribe(user_created)
    async def welcome(user: User) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(user.name)

    async def live():
        async with testing.run(service, shutdown_grace=60) as app:
            await app.publish(user_created, User("Ada"))
            await asyncio.wait_for(started.wait(), 5)
            going.set()

    going = asyncio.Event()
    living = asyncio.create_task(live())
    await asyncio.wait_for(going.wait(), 5)
    await asyncio.sleep(0.05)  # it drains now
    living.cancel()
    await asyncio.wait({living}, timeout=5)
    assert ended == ["Ada"]


class OneBadClose(MemoryBroker):
    """A broker whose first subscription can't be closed."""

    async def subscribe(self, topic, **terms):
        subscription = await super().subscribe(topic, **terms)
        if topic == "user.deleted":

            async def close():
                raise BrokerError("it can't be closed")

            subscription.close = close
        return subscription


async def test_one_subscription_that_cannot_be_closed_does_not_cut_the_others_short(caplog):
    service = Service("email")
    created = service.publisher(Topic("done", User))
    trigger = service.publisher(user_created)
    started, published = asyncio.Event(), []

    @service.subscribe(user_deleted)
    async def quick(user: User) -> None: ...

    @service.subscribe(user_created)
    async def slow(user: User) -> None:
        started.set()
        await asyncio.sleep(0.3)
        await created.publish(user)
        published.append(user.name)

    broker = OneBadClose("bad-close")
    async with testing.run(service, broker=broker):
        await trigger.publish(User("Ada"))
        await asyncio.wait_for(started.wait(), 5)
        broker._members.clear()  # its own close would meet the same error; this test is about the service
    assert published == ["Ada"]
    assert "it can't be closed" in caplog.text


async def test_the_same_service_starts_again():
    service = Service("email")
    got: asyncio.Queue[str] = asyncio.Queue()

    @service.subscribe(user_created)
    async def welcome(user: User) -> None:
        await got.put(user.name)

    for name in ("first", "second"):
        async with testing.run(service) as app:
            await app.publish(user_created, User(name))
            assert await asyncio.wait_for(got.get(), 5) == name


async def test_a_start_that_fails_half_way_unwinds_what_was_done():
    service = Service("email")
    trace = []

    @service.lifespan
    async def resource():
        trace.append("open")
        try:
            yield
        finally:
            trace.append("close")

    @service.lifespan
    async def broken():
        raise RuntimeError("no database")
        yield

    with pytest.raises(RuntimeError, match="no database"):
        async with testing.run(service):
            pytest.fail("it must not start")
    assert trace == ["open", "close"]
    assert service.address == ""


async def test_lifespans_open_in_order_and_close_in_reverse():
    service = Service("email")
    trace = []

    def declare(name):
        @service.lifespan
        async def resource():
            trace.append(f"+{name}")
            yield
            trace.append(f"-{name}")

    declare("a")
    declare("b")
    async with testing.run(service):
        assert trace == ["+a", "+b"]
    assert trace == ["+a", "+b", "-b", "-a"]


async def test_publishing_while_the_service_does_not_run_is_an_error():
    service = Service("user")
    created = service.publisher(user_created)
    with pytest.raises(NotRunning):
        await created.publish(User("Ada"))
    async with testing.run(service):
        await created.publish(User("Ada"))
    with pytest.raises(NotRunning):
        await created.publish(User("Ada"))


async def test_publishing_another_type_is_an_error_and_nothing_is_sent():
    service = Service("user")
    created = service.publisher(user_created)
    async with testing.run(service) as app:
        watch = await app.watch(user_created)
        with pytest.raises(CodecError, match="can't encode str as User"):
            await created.publish("Ada")
        await created.publish(User("Ada"))
        assert await watch.next() == User("Ada")


async def test_metadata_that_would_forge_the_event_is_refused():
    service = Service("user")
    created = service.publisher(user_created)
    async with testing.run(service):
        for metadata in ({"ce-id": "1"}, {"Content-Type": "x"}, {"a": "line\nbreak"}, {"sp ace": "x"}):
            with pytest.raises(ConfigurationError):
                await created.publish(User("Ada"), metadata=metadata)


def test_declaring_needs_a_handler_that_fits():
    service = Service("email")
    with pytest.raises(HandlerError, match="async def"):
        service.subscribe(user_created)(lambda user: None)

    async def nothing() -> None: ...

    async def other(user: str) -> None: ...

    async def untyped(user): ...

    with pytest.raises(HandlerError, match="one argument"):
        service.subscribe(user_created)(nothing)
    with pytest.raises(HandlerError, match=r"takes a str, but user\.created carries User"):
        service.subscribe(user_created)(other)
    service.subscribe(user_created)(untyped)


def test_two_handlers_of_a_topic_must_not_share_a_group():
    service = Service("email")

    async def one(user: User) -> None: ...

    async def two(user: User) -> None: ...

    service.subscribe(user_created)(one)
    with pytest.raises(ConfigurationError, match="group"):
        service.subscribe(user_created)(two)
    service.subscribe(user_created, group="email.other")(two)
    service.subscribe(user_created, group=None)(two)


async def test_a_topic_that_needs_more_than_the_broker_gives_refuses_to_start():
    service = Service("email")
    careful = Topic("paid", User, delivery="at-least-once")

    @service.subscribe(careful)
    async def handle(user: User) -> None: ...

    with pytest.raises(CapabilityError, match=r"paid needs at-least-once.*direct doesn't.*Brokers that do:.*memory"):
        async with testing.run(service, broker="direct"):
            pytest.fail("it must not start")


async def test_a_running_service_can_neither_be_changed_nor_started_again():
    service = Service("email")
    async with testing.run(service):
        with pytest.raises(ConfigurationError):
            service.publisher(user_created)
        with pytest.raises(ConfigurationError):
            async with testing.run(service):
                pytest.fail("it runs already")


def test_a_second_init_does_not_parse_again():
    service = Service("email")
    first = service.init(["--server-version", "7"], {})
    assert service.init(["--nonsense"], {"MICRO_BROKER": "nonsense"}) is first
    assert first.version == "7"


def test_options_are_taken_after_init():
    with pytest.raises(NotRunning):
        Service("email").options  # noqa: B018


class StubbornRegistry(MemoryRegistry):
    """A registry that is gone when a service says goodbye."""

    async def deregister(self, instance):
        raise RegistryError("the registry is away")


async def test_a_registry_that_is_away_at_the_end_is_logged_and_everything_else_is_closed(caplog):
    service = Service("email")
    closed = []

    @service.lifespan
    async def resource():
        yield
        closed.append(True)

    async with testing.run(service, registry=StubbornRegistry("stubborn")):
        pass
    assert closed
    assert "the registry is away" in caplog.text


async def test_a_middleware_decides_what_metadata_an_event_has():
    async def change(call, call_next):
        if call.kind is Kind.PUBLISH:
            call.metadata.pop("secret")
            call.metadata["trace"] = "7"
        return await call_next(call)

    service = Service("user", middleware=[change])
    created = service.publisher(user_created)
    async with testing.run(service) as app:
        await app.client.connect_broker()
        subscription = await app.client.options.broker.subscribe("user.created", group=None)
        await created.publish(User("Ada"), metadata={"secret": "x"})
        [delivery] = await asyncio.wait_for(subscription.receive(), 5)
        await subscription.close()
    assert delivery.message.metadata == {"trace": "7"}


async def test_options_are_those_that_the_service_runs_with():
    service = Service("email")
    seen = []

    @service.lifespan
    async def resource():
        seen.append(service.options.broker.name)
        yield

    async with testing.run(service):
        pass
    assert seen == ["memory"]


async def test_a_broker_that_is_away_is_a_failed_start():
    service = Service("email", broker="nats://127.0.0.1:1?timeout=1", registry="memory://x", transport="memory")
    service.init([], {})
    with pytest.raises(BrokerUnavailable, match="is it running"):
        async with service:
            pytest.fail("it must not start")
