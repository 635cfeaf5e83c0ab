"""The database: SQLite and real PostgreSQL, down, started twice, restarted."""

import asyncio

import pytest

from ketch import AlreadyExists, Unavailable
from shippy.user.v1.user_pb2 import AuthRequest, GetAllRequest
from shippy.user_service.config import database_url
from shippy.user_service.database import open_database
from shippy.user_service.store import Store


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/users.sqlite3"
    return request.getfixturevalue("postgres").database()


@pytest.fixture
async def store(url):
    async with open_database(database_url({"DATABASE_URL": url})) as database:
        yield Store(database, outbox=True)


async def test_a_stored_user_is_found_by_id_and_email_and_has_no_password(store):
    user = await store.add("Ada", "Analytical", "Ada@example.org", "hash")
    assert await store.find(user.id) == user
    assert user.password == ""
    assert await store.credentials("ADA@EXAMPLE.ORG") == (user.id, "hash")
    assert await store.find("nobody's") is None
    assert await store.credentials("nobody@example.org") is None


async def test_an_email_is_unique_in_whatever_case_even_for_those_who_come_at_once(store):
    tries = [store.add("Ada", "", email, "h") for email in ("a@example.org", "A@example.org", "a@EXAMPLE.org")]
    results = await asyncio.gather(*tries, return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["AlreadyExists", "AlreadyExists", "User"]
    with pytest.raises(AlreadyExists) as taken:
        await store.add("Ada", "", "a@example.org", "the-hash")
    assert "the-hash" not in str(taken.value)


async def test_pages_come_in_the_order_of_creation_and_end(store):
    assert await store.page(0, 2) == ([], 0)
    users = [await store.add(f"User {n}", "", f"{n}@example.org", "h") for n in range(5)]
    found, after, pages = [], 0, 0
    while pages == 0 or after:
        page, after = await store.page(after, 2)
        found += page
        pages += 1
    assert found == users
    assert pages == 3


async def test_a_hash_is_replaced_only_if_it_is_still_the_one_that_was_seen(store):
    user = await store.add("Ada", "", "a@example.org", "first")
    await store.replace_hash(user.id, "another", "second")
    assert await store.credentials("a@example.org") == (user.id, "first")
    await store.replace_hash(user.id, "first", "second")
    assert await store.credentials("a@example.org") == (user.id, "second")


async def test_an_event_in_the_outbox_is_claimed_by_one_released_and_removed(store):
    users = [await store.add(f"User {n}", "", f"{n}@example.org", "h") for n in range(2)]
    claims = await asyncio.gather(*[store.claim(60) for _ in range(4)])
    claimed = sorted((claim for claim in claims if claim), key=lambda claim: claim.position)
    assert len({claim.position for claim in claimed}) == len(claimed)
    while another := await store.claim(60):
        claimed.append(another)
    assert [claim.user for claim in claimed] == users
    await store.release(claimed[1].position)
    await store.published(claimed[0].position)
    assert (await store.claim(60)).user == users[1]


async def test_who_claimed_an_event_and_died_has_lost_it_when_the_time_is_over(store):
    user = await store.add("Ada", "", "a@example.org", "h")
    await store.claim(-1)
    assert (await store.claim(60)).user == user


async def test_two_instances_that_start_at_once_migrate_one_after_the_other(house, url, new_user):
    house.environ["DATABASE_URL"] = url
    house.start_all("user_service", "user_service")
    async with house.users() as users:
        for n in range(4):  # in turn to both of them
            await users.create(new_user(f"User {n}"))
        assert len((await users.get_all(GetAllRequest())).users) == 4


async def test_a_restart_keeps_the_users_and_the_whole_run_works(house, url, new_user):
    house.environ["DATABASE_URL"] = url
    email, first = house.start_all("email_service", "user_service")
    async with house.users() as users:
        created = await users.create(new_user("Ada"))
        await email.said("Sending email to: Ada")
        assert await asyncio.to_thread(first.stop) == 0
    house.start_all("user_service")
    async with house.users() as users:
        assert list((await users.get_all(GetAllRequest())).users) == [created.user]
        assert (await users.auth(AuthRequest(email="ada@example.org", password="correct horse"))).token.valid


def test_migrating_is_a_command_too(house, url):
    for _ in range(2):
        program = house.start("user_service.migrate", DATABASE_URL=url)
        assert program.end() == 0, program.output
        assert "is up to date" in program.output


def test_a_database_that_is_down_is_a_failed_start_with_a_clear_error(house, tmp_path):
    for url in ("postgresql://ada:hidden-word@127.0.0.1:1/users", f"sqlite:///{tmp_path}/no/such/folder/file"):
        program = house.start("user_service", DATABASE_URL=url)
        assert program.end() == 1
        assert "can't be used" in program.output
        assert "hidden-word" not in program.output
        assert "Traceback" not in program.output


async def test_while_the_database_is_away_calls_end_unavailable_and_work_again_after(house, postgres, new_user):
    house.environ["DATABASE_URL"] = postgres.database()
    house.start_all("user_service")
    async with house.users() as users:
        await users.create(new_user("Ada"))
        await asyncio.to_thread(postgres.stop)
        try:
            with pytest.raises(Unavailable, match="can't be used"):
                await users.create(new_user("Grace"))
        finally:
            await asyncio.to_thread(postgres.start)
        await users.create(new_user("Grace"))
        assert len((await users.get_all(GetAllRequest())).users) == 2
