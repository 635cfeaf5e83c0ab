"""What the original did not do: secrets stay where they belong, and no failure is silent."""

import asyncio
import subprocess
import sys
from pathlib import Path

import jwt
import nats as nats_py
import pytest

from ketch import AlreadyExists, Client, NotFound, Unauthenticated, Unavailable
from shippy.consignment.v1.consignment_ketch import ConsignmentServiceStub
from shippy.consignment.v1.consignment_pb2 import CreateRequest as Consign
from shippy.user.v1.user_pb2 import AuthRequest, GetAllRequest, GetRequest, User, ValidateTokenRequest

SECRET = "a-password-nobody-may-see"
MAIL = "Sending email to: "


async def test_no_password_hash_or_token_is_in_any_event_reply_token_log_or_output(house, nats, new_user):
    house.environ |= {**nats.environ, "MICRO_LOG_LEVEL": "DEBUG"}
    programs = house.start_all("email_service", "user_service", "consignment_service")
    client = await nats_py.connect(nats.url)
    events = await client.subscribe("user.created")
    await client.flush()
    seen = []
    async with house.users() as users:
        request = new_user("Ada", password=SECRET)
        seen.append(
            await users.create(request, metadata={"token": "an-inbound-token", "authorization": "Bearer inbound"})
        )
        event = await events.next_msg(timeout=10)
        assert User.FromString(event.data) == User(id=seen[0].user.id, name="Ada", email="ada@example.org")
        assert "inbound" not in str(event.headers)
        with pytest.raises(AlreadyExists) as taken:
            await users.create(request)
        with pytest.raises(Unauthenticated) as refused:
            await users.auth(AuthRequest(email="ada@example.org", password=SECRET + "!"))
        seen += [taken.value, refused.value, event.headers, event.data]
        seen += [await users.get_all(GetAllRequest()), await users.get(GetRequest(id=seen[0].user.id))]
        reply = await users.auth(AuthRequest(email="ADA@example.org", password=SECRET))
        claims = jwt.decode(reply.token.token, options={"verify_signature": False})
        assert set(claims) == {"sub", "iss", "iat", "exp"}
        seen += [reply, claims]
    cli = house.start("user_cli", SHIPPY_PASSWORD=SECRET)
    assert await asyncio.to_thread(cli.end) == 0
    await programs[0].said(MAIL + "Ewan Valentine")
    await client.close()
    for text in [*map(str, seen), cli.output, *[program.output for program in programs]]:
        assert SECRET not in text
        assert "argon2" not in text
        assert house.environ["JWT_KEY"] not in text


async def test_every_bad_token_is_refused_and_the_service_keeps_serving(house, new_user):
    house.start_all("user_service")
    async with house.users() as users:
        created = await users.create(new_user("Ada"))
        good = (await users.auth(AuthRequest(email="ada@example.org", password="correct horse"))).token.token
        head, body, signature = good.split(".")
        foreign = jwt.encode({"sub": "x", "iss": "go.micro.srv.user", "exp": 2**32}, "k" * 32)
        unsigned = jwt.encode({"sub": "x", "iss": "go.micro.srv.user", "exp": 2**32}, None, algorithm="none")
        for bad in (
            "",
            "garbage",
            f"{head}.{body}",
            f"{head}.{body}.{signature[::-1]}",
            foreign,
            unsigned,
            "é.é.é",
            "x" * 99_999,
        ):
            with pytest.raises(Unauthenticated):
                await users.validate_token(ValidateTokenRequest(token=bad))
        reply = await users.validate_token(ValidateTokenRequest(token=good))
        assert (reply.token.valid, reply.user_id) == (True, created.user.id)


async def test_an_unknown_email_and_a_wrong_password_are_answered_alike(house, new_user):
    house.start_all("user_service")
    answers = []
    async with house.users() as users:
        await users.create(new_user("Ada"))
        for email, password in (("ada@example.org", "wrong"), ("nobody@example.org", "wrong"), ("x" * 999, "x" * 9999)):
            with pytest.raises(Unauthenticated) as refused:
                await users.auth(AuthRequest(email=email, password=password))
            answers.append(str(refused.value))
        with pytest.raises(NotFound):
            await users.get(GetRequest(id="nobody's"))
    assert len(set(answers)) == 1


@pytest.mark.parametrize("key", [None, "", "short"])
def test_without_a_good_key_user_service_does_not_start(house, key):
    program = house.start("user_service", JWT_KEY=key)
    assert program.end() == 2
    assert "JWT_KEY" in program.output
    assert "Traceback" not in program.output


@pytest.mark.parametrize("program", ["email_service", "email_service.raw_json", "user_service"])
def test_a_service_that_cannot_reach_its_broker_does_not_pretend_to_run(house, nats, program):
    nats.kill()
    started = house.start(program, **nats.environ)
    assert started.end() == 1
    assert "is it running?" in started.output
    assert "Traceback" not in started.output


@pytest.mark.parametrize("events", ["typed", "raw"])
async def test_a_create_succeeds_while_the_broker_is_away_and_the_loss_is_logged_and_counted(
    house, nats, new_user, events
):
    house.environ |= nats.environ
    (user_service,) = house.start_all(("user_service", {"SHIPPY_EVENTS": events}))
    nats.kill()
    await user_service.said("lost nats://")
    async with house.users() as users:
        for n, name in enumerate(("Ada", "Grace"), 1):
            assert (await users.create(new_user(name))).user.id
            await user_service.said(f"is lost, the {n}. so far")


async def test_the_outbox_survives_a_broker_that_is_away_and_a_crash_after_the_commit(house, nats, new_user):
    house.environ |= {**nats.environ, "SHIPPY_OUTBOX": "1"}
    (user_service,) = house.start_all("user_service")
    nats.kill()
    await user_service.said("lost nats://")
    async with house.users() as users:
        await users.create(new_user("Ada"))
        await users.create(new_user("Grace"))
    user_service.kill()
    nats.start()
    email, again = house.start_all("email_service", "user_service")
    await email.said(MAIL + "Ada")
    await email.said(MAIL + "Grace")
    async with house.users() as users:
        await users.create(new_user("Last"))
    await email.said(MAIL + "Last")
    assert email.count(MAIL) == 3
    assert "Traceback" not in again.output


async def test_the_outbox_publishes_once_the_broker_is_back_without_a_restart(house, nats, new_user):
    house.environ |= {**nats.environ, "SHIPPY_OUTBOX": "1"}
    email, user_service = house.start_all("email_service", "user_service")
    nats.kill()
    await user_service.said("lost nats://")
    async with house.users() as users:
        await users.create(new_user("Ada"))
    await user_service.said("the outbox waits")
    nats.start()
    await email.said("is back")
    await email.said(MAIL + "Ada")
    assert email.count(MAIL) == 1


async def test_a_second_service_lets_in_only_who_has_a_good_token(house, new_user):
    _, user_service = house.start_all("consignment_service", "user_service")
    async with house.users() as users, Client.from_env((), environ=house.environ) as client:
        await users.create(new_user("Ada"))
        token = (await users.auth(AuthRequest(email="ada@example.org", password="correct horse"))).token.token
        consignments = client.stub(ConsignmentServiceStub)
        cargo = Consign(description="bananas", weight=500)
        for metadata in ({"token": token}, {"authorization": f"Bearer {token}"}, {"authorization": f"bearer {token}"}):
            assert (await consignments.create(cargo, metadata=metadata)).consignment.description == "bananas"
        for metadata in ({}, {"token": "garbage"}, {"authorization": "Bearer"}, {"authorization": f"Basic {token}"}):
            with pytest.raises(Unauthenticated):
                await consignments.create(cargo, metadata=metadata)
        await asyncio.to_thread(user_service.stop)
        with pytest.raises(Unavailable, match="can't judge"):
            await consignments.create(cargo, metadata={"token": token})


def test_the_tool_creates_lists_and_signs_in_and_goes_on_when_the_user_is_there(house):
    house.start_all("user_service")
    first, second = house.start("user_cli"), None
    assert first.end() == 0
    created, listed, token = first.output.splitlines()
    assert created.startswith("Created: ")
    assert "Ewan Valentine <ewan.valentine89@gmail.com> BBC" in listed
    assert token.startswith("Your access token is: ey")
    second = house.start("user_cli")
    assert second.end() == 0
    assert second.output.startswith("Already there: ewan.valentine89@gmail.com")
    assert "Your access token is: ey" in second.output
    wrong = house.start("user_cli", "--password", "another")
    assert wrong.end() == 1
    assert "Could not authenticate: " in wrong.output


def test_the_tool_says_so_when_user_service_is_down(house):
    program = house.start("user_cli")
    assert program.end() == 1
    assert program.output.startswith("Could not create: ")


def test_one_command_brings_everything_up():
    demo = Path(__file__).parents[1] / "demo.py"
    run = subprocess.run([sys.executable, demo], capture_output=True, text=True, timeout=50, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    for line in ("user-cli      | Created: ", "user-cli      | Your access token is: "):
        assert line in run.stdout
    assert run.stdout.count("Sending email to: Ewan Valentine") == 1
