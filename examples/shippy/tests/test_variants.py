"""The tutorial's variants: raw broker with JSON, typed with protobuf, and NATS without the framework."""

import base64
import json

import nats as nats_py
import pytest

from shippy.user.v1.user_pb2 import User

MAIL = "Sending email to: "
RAW = {"SHIPPY_EVENTS": "raw"}


@pytest.mark.parametrize("broker", ["direct", "nats"])
@pytest.mark.parametrize("listener", ["email_service.raw_json", "email_service"])
async def test_the_raw_variant_is_heard_by_hand_and_by_the_typed_one(house, nats, new_user, broker, listener):
    house.environ |= nats.environ if broker == "nats" else {}
    email, _ = house.start_all(listener, ("user_service", RAW))
    async with house.users() as users:
        await users.create(new_user("Ada"))
    await email.said(MAIL + "Ada")
    assert email.stop() == 0


async def test_the_raw_variant_is_json_with_the_users_id_as_a_header(house, nats, new_user):
    house.environ |= nats.environ
    house.start_all(("user_service", RAW))
    client = await nats_py.connect(nats.url)
    events = await client.subscribe("user.created")
    await client.flush()
    async with house.users() as users:
        reply = await users.create(new_user("Ada"))
    event = await events.next_msg(timeout=10)
    await client.close()
    assert event.headers["id"] == reply.user.id
    assert json.loads(event.data) == {"id": reply.user.id, "name": "Ada", "company": "", "email": "ada@example.org"}


@pytest.mark.parametrize("events", ["typed", "raw"])
async def test_a_plain_nats_client_reads_the_user(house, nats, new_user, events):
    house.environ |= nats.environ
    plain, _ = house.start_all("email_service.plain_nats", ("user_service", {"SHIPPY_EVENTS": events}))
    async with house.users() as users:
        await users.create(new_user("Ada"))
    await plain.said(MAIL + "Ada")
    assert plain.stop() == 0


@pytest.mark.parametrize("listener", ["email_service", "email_service.raw_json"])
def test_email_service_reacts_to_what_a_plain_nats_client_publishes(house, nats, listener):
    house.environ |= nats.environ
    (email,) = house.start_all(listener)
    assert house.start("email_service.plain_nats", "publish", "Grace Hopper").end() == 0
    email.wait_for(MAIL + "Grace Hopper")


async def test_go_micros_envelope_is_spoken_when_asked_for(house, nats, new_user):
    house.environ |= {"MICRO_BROKER": f"{nats.url}?envelope=go-micro"}
    email, _ = house.start_all("email_service", "user_service")
    client = await nats_py.connect(nats.url)
    events = await client.subscribe("user.created")
    await client.flush()
    async with house.users() as users:
        reply = await users.create(new_user("Ada"))
    envelope = json.loads((await events.next_msg(timeout=10)).data)
    assert {key.lower(): value for key, value in envelope["Header"].items()}["id"] == reply.user.id
    assert User.FromString(base64.b64decode(envelope["Body"])) == reply.user
    await client.close()
    await email.said(MAIL + "Ada")


async def test_a_body_by_hand_that_holds_no_user_is_passed_over(house, nats):
    house.environ |= nats.environ
    (email,) = house.start_all("email_service.raw_json")
    client = await nats_py.connect(nats.url)
    for body in (b"\xff", b"[]", b"{}", b"null", b'{"name": "After"}'):
        await client.publish("user.created", body)
    await client.drain()
    await email.said(MAIL + "After")
    assert email.count("dropped") == 4


async def test_with_fixed_addresses_as_in_the_compose_file_the_run_is_the_same(house, nats, free_port):
    house.environ |= {**nats.environ, "MICRO_REGISTRY": f"static://?shippy.user.v1.UserService=127.0.0.1:{free_port}"}
    email, _ = house.start_all(
        "email_service", ("user_service", {"MICRO_SERVER_ADDRESS": f"0.0.0.0:{free_port}", "SHIPPY_OUTBOX": "1"})
    )
    cli = house.start("user_cli")
    assert cli.end() == 0, cli.output
    await email.said(MAIL + "Ewan Valentine")


async def test_a_port_that_is_taken_is_a_failed_start_with_a_clear_error(house, nats):
    program = house.start("user_service", MICRO_SERVER_ADDRESS=nats.address)
    assert program.end() == 1
    assert nats.address in program.output
    assert "Traceback" not in program.output
