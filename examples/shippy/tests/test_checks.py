"""The checks that a reader of the tutorial would make, by their numbers, with the real programs."""

import asyncio
import re
import signal
from pathlib import Path

import pytest

import shippy.user_service
from ketch import Client, InvalidArgument, Message, Service, Topic, Unavailable, testing
from ketch.errors import HandlerError, UnknownContentType
from shippy.contract import user_created
from shippy.user.v1.user_pb2 import User

MAIL = "Sending email to: "


def subscriber(name, **environ):
    return ("subscriber.py", {"NAME": name, **environ})


async def test_check_01_the_line_appears_for_each_created_user_once(house, new_user):
    email, _ = house.start_all("email_service", "user_service")
    async with house.users() as users:
        for name in ("Ewan Valentine", "Ada", "Grace"):
            await users.create(new_user(name))
    await email.said(MAIL + "Grace")
    lines = [line for line in email.output.splitlines() if MAIL in line]
    assert [line[19:] for line in lines] == [f" {MAIL}{name}" for name in ("Ewan Valentine", "Ada", "Grace")]
    assert all(re.match(r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d ", line) for line in lines)


async def test_check_02_a_create_that_fails_yields_no_event(house, new_user):
    email, _ = house.start_all("email_service", "user_service")
    async with house.users() as users:
        await users.create(new_user("Ada"))
        for bad in (new_user("Eve", email="ada@EXAMPLE.org"), new_user("Mallory", email="nowhere"), new_user("")):
            with pytest.raises(Exception, match=r"already|no e-mail|missing"):
                await users.create(bad)
        await users.create(new_user("Last"))
    await email.said(MAIL + "Last")
    assert email.count(MAIL) == 2


async def test_check_03_user_service_works_without_email_service_and_holds_no_word_of_it(house, new_user):
    house.start_all("user_service")
    async with house.users() as users:
        assert (await users.create(new_user())).user.name == "Ada"
    folder = Path(shippy.user_service.__file__).parent
    for source in folder.rglob("*.py"):
        assert not re.search(r"email[-_. ]?service|srv\.email|welcome|sending", source.read_text(), re.IGNORECASE), (
            source
        )


async def test_check_04_twelve_subscribers_each_get_each_event_of_a_user_service_that_never_changed(house, new_user):
    house.start_all("user_service")
    async with house.users() as users:
        await users.create(new_user("For nobody"))
        twelve = house.start_all(*[subscriber(f"reaction-{n}") for n in range(12)])
        await asyncio.sleep(0.3)  # what `direct` declares as its subscribe_lag: no event tells its end
        for name in ("Ada", "Grace"):
            await users.create(new_user(name))
    for program in twelve:
        await program.said("got <Grace>")
        assert [program.count(f"got <{name}>") for name in ("For nobody", "Ada", "Grace")] == [0, 1, 1]


async def test_check_05_one_that_fails_hangs_or_crashes_affects_neither_the_others_nor_the_publisher(house, new_user):
    failing, hanging, crashing, well, _ = house.start_all(
        subscriber("failing", DOES="fail"),
        subscriber("hanging", DOES="hang"),
        subscriber("crashing", DOES="crash"),
        subscriber("well"),
        "user_service",
    )
    async with house.users() as users:
        await users.create(new_user("Ada"))
        assert await asyncio.to_thread(crashing.end) == 3
        await users.create(new_user("Grace"))
    await well.said("got <Grace>")
    await failing.said("begin <Grace>")
    assert well.count("got <") == 2
    assert hanging.count("begin <") == 1


async def test_check_06_two_instances_in_one_group_share_each_event_and_without_a_group_both_get_it(house, new_user):
    shared = [subscriber("shared"), subscriber("shared")]
    alone = [subscriber("alone", GROUP="none"), subscriber("alone", GROUP="none")]
    *programs, _ = house.start_all(*shared, *alone, "user_service")
    names = [f"User {n}" for n in range(6)]
    async with house.users() as users:
        for name in names:
            await users.create(new_user(name))
    for program in programs[2:]:
        await program.said("got <", len(names))
    for program in programs[:2]:  # what was taken is handled before a program ends
        assert await asyncio.to_thread(program.stop) == 0
    for name in names:
        assert [sum(p.count(f"got <{name}>") for p in pair) for pair in (programs[:2], programs[2:])] == [1, 2]


async def test_check_07_without_a_subscriber_the_event_is_lost_and_publishing_is_no_error(house, new_user):
    user_service, *_ = house.start_all("user_service")
    async with house.users() as users:
        await users.create(new_user("Lost"))
        email, *_ = house.start_all("email_service")
        await asyncio.sleep(0.3)  # subscribe_lag, as above
        await users.create(new_user("Ada"))
    await email.said(MAIL + "Ada")
    assert email.count(MAIL) == 1
    assert "WARNING" not in user_service.output


async def test_check_08_an_event_is_never_delivered_twice_to_one_subscription(house, new_user):
    program, _ = house.start_all(subscriber("one", DOES="slow"), "user_service")
    async with house.users() as users:
        for name in ("Ada", "Grace", "Last"):
            await users.create(new_user(name))
    await program.said("got <Last>")
    assert [program.count(f"begin <{name}>") for name in ("Ada", "Grace", "Last")] == [1, 1, 1]


async def test_check_09_create_does_not_wait_for_handlers(house, new_user):
    program, _ = house.start_all(subscriber("hanging", DOES="hang"), "user_service")
    async with house.users() as users:
        await users.create(new_user("Ada"))
        await program.said("begin <Ada>")
        await users.create(new_user("Grace"))
    assert "got <" not in program.output


async def test_check_10_a_garbage_message_is_passed_over(house, new_user):
    email, _ = house.start_all("email_service", "user_service")
    bodies = (b"\xff\xff garbage", b'{"name": 7}', b"{", b"\x00" * 100_000)
    async with Client.from_env((), environ=house.environ) as client:
        await client.connect_broker()
        for body in bodies:
            await client.options.broker.publish(Message("user.created", {}, body))
        foreign = Message("user.created", {"content-type": "application/x-unheard-of"}, b"x")
        await client.options.broker.publish(foreign)
        await client.options.broker.publish(Message("user.created", {}, User(name="After").SerializeToString()))
    await email.said(MAIL + "After")
    assert email.count("dropped") == len(bodies) + 1
    async with house.users() as users:
        await users.create(new_user("Ada"))
    await email.said(MAIL + "Ada")


def test_check_11_a_flag_beats_the_environment(house):
    program = house.start("email_service", "--broker", "direct", MICRO_BROKER="nats")
    program.wait_for("is up: broker direct")


@pytest.mark.parametrize("program", ["email_service", "email_service.raw_json", "user_service", "user_cli"])
def test_check_12_an_unknown_broker_is_named_with_the_nearest_name(house, program):
    started = house.start(program, MICRO_BROKER="natz")
    assert started.end() == 2
    assert "Broker natz not found" in started.output
    assert "nats" in started.output.replace("natz", "")
    assert "Traceback" not in started.output


def test_check_13_a_second_init_does_not_parse_again():
    service = Service("go.micro.srv.twice")
    first = service.init(["--broker", "memory"], {})
    assert service.init(["--broker", "no such broker"], {}) is first
    assert service.options is first


@pytest.mark.parametrize("broker", ["direct", "nats"])
async def test_check_14_the_variable_alone_switches_the_broker(house, nats, new_user, broker):
    house.environ |= {"MICRO_BROKER": broker} | ({"MICRO_BROKER_ADDRESS": nats.address} if broker == "nats" else {})
    email, user_service = house.start_all("email_service", "user_service")
    async with house.users() as users:
        await users.create(new_user("Ada"))
    await email.said(MAIL + "Ada")
    assert f"broker {broker}" in email.output
    assert f"broker {broker}" in user_service.output


def test_check_15_a_wrong_handler_signature_is_refused_at_registration():
    service = Service("go.micro.srv.wrong")

    async def takes_text(user: str) -> None:
        """Not a user."""

    def not_async(user: User) -> None:
        """Not a coroutine."""

    for handler in (takes_text, not_async):
        with pytest.raises(HandlerError):
            service.subscribe(user_created)(handler)


async def test_check_16_metadata_travels_as_headers_and_reaches_the_handlers_context(house, new_user):
    program, _ = house.start_all(subscriber("one"), "user_service")
    async with house.users() as users:
        reply = await users.create(new_user("Ada"))
    await program.said(f"got <Ada> with {{'id': '{reply.user.id}'}}")


async def test_check_17_the_content_type_selects_the_codec_and_an_unknown_one_is_refused():
    as_json = Topic("user.created", User, content_type="application/json")
    heard = Service("go.micro.srv.heard")
    got: asyncio.Queue[tuple[User, str]] = asyncio.Queue()

    @heard.subscribe(user_created)
    async def handle(user: User) -> None:
        from ketch import context  # noqa: PLC0415 - beside its only use

        await got.put((user, context.current().message.content_type))

    async with testing.run(heard) as app:
        await app.publish(as_json, User(name="Ada"))
        await app.publish(user_created, User(name="Grace"))
        assert await got.get() == (User(name="Ada"), "application/json")
        user, content_type = await got.get()
        assert (user.name, "protobuf" in content_type) == ("Grace", True)
        with pytest.raises(UnknownContentType):
            await app.publish(Topic("user.created", User, content_type="application/x-unheard-of"), User())


async def test_check_18_sigterm_deregisters_drains_and_exits_with_0(house, new_user):
    program, user_service = house.start_all(subscriber("slow", DOES="slow"), "user_service")
    async with house.users() as users:
        await users.create(new_user("Ada"))
        await program.said("begin <Ada>")
        assert await asyncio.to_thread(program.stop) == 0
        assert "got <Ada>" in program.output
        assert await asyncio.to_thread(user_service.stop, signal.SIGINT) == 0
    async with house.users() as users:
        with pytest.raises(Unavailable, match="no instance"):
            await users.create(new_user("Grace"))


async def test_check_19_the_services_reconnect_when_the_broker_restarts(house, nats, new_user):
    house.environ |= nats.environ
    email, user_service = house.start_all("email_service", "user_service")
    nats.kill()
    await email.said("lost nats://")
    await user_service.said("lost nats://")
    nats.start()
    await email.said("is back")
    await user_service.said("is back")
    async with house.users() as users:
        await users.create(new_user("Ada"))
    await email.said(MAIL + "Ada")


async def test_bad_requests_are_refused_with_the_reason(house, new_user):
    house.start_all("user_service")
    async with house.users() as users:
        for request, reason in (
            (new_user("x" * 201), "201 characters"),
            (new_user("a\nb", email="a@b"), "can't be printed"),
            (new_user("Ada", password=" "), "password is missing"),
        ):
            with pytest.raises(InvalidArgument, match=reason):
                await users.create(request)
