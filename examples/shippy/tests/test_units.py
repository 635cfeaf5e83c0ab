"""The parts of user-service by themselves."""

import asyncio
from datetime import UTC, datetime, timedelta

import jwt
import pytest
from argon2 import PasswordHasher

from ketch import InvalidArgument, Unauthenticated
from ketch.errors import ConfigurationError
from shippy.user.v1.user_pb2 import CreateRequest, User
from shippy.user_service.config import Config, database_url
from shippy.user_service.passwords import Passwords
from shippy.user_service.tokens import ISSUER, Tokens
from shippy.user_service.users import Users
from shippy.user_service.validation import check_user, page_position, page_size, page_token

KEY = "k" * 32


def claims(**changed):
    return {"sub": "ada", "iss": ISSUER, "exp": datetime.now(UTC) + timedelta(hours=1), **changed}


def test_a_token_is_good_for_72_hours_and_says_whose_it_is():
    token = Tokens(KEY).issue("ada")
    found = jwt.decode(token, KEY, algorithms=["HS256"], issuer="go.micro.srv.user")
    assert found["exp"] - found["iat"] == 72 * 3600
    assert Tokens(KEY).subject(token) == "ada"


@pytest.mark.parametrize(
    "token",
    [
        jwt.encode(claims(exp=datetime.now(UTC) - timedelta(seconds=1)), KEY),
        jwt.encode(claims(iss="somebody else"), KEY),
        jwt.encode(claims(), "x" * 32),
        jwt.encode(claims(), KEY * 2, algorithm="HS512"),
        jwt.encode(claims(), None, algorithm="none"),
        jwt.encode({"sub": "ada", "iss": ISSUER}, KEY),
        jwt.encode({"exp": 2**32, "iss": ISSUER}, KEY),
        jwt.encode(claims(exp="tomorrow"), KEY),
        "eyJhbGciOiJIUzI1NiJ9.e30.",
        "",
        ".",
        "..",
        "a.b",
        "a.b.c",
        "\x00",
        "x" * 5000,
    ],
    ids=range(16),  # the tokens hold the time, and the test's processes have to agree on the names
)
def test_any_other_token_is_refused(token):
    with pytest.raises(Unauthenticated):
        Tokens(KEY).subject(token)


async def test_a_password_is_verified_and_without_a_hash_never():
    async with Passwords() as passwords:
        hashed = await passwords.hash("correct horse")
        assert hashed.startswith("$argon2id$")
        assert await passwords.verify("correct horse", hashed)
        assert not await passwords.verify("wrong", hashed)
        assert not await passwords.verify("nobody's", None)
        assert not await passwords.verify("correct horse", "no hash at all")


async def test_a_hash_of_weaker_parameters_is_outdated():
    async with Passwords() as passwords:
        assert passwords.outdated(PasswordHasher(time_cost=1, memory_cost=8192).hash("x"))
        assert not passwords.outdated(await passwords.hash("x"))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"name": ""}, "name is missing"),
        ({"name": "  "}, "name is missing"),
        ({"email": ""}, "email is missing"),
        ({"email": "a@b@c"}, "no e-mail address"),
        ({"email": "a b@c"}, "no e-mail address"),
        ({"email": "a@" + "b" * 300}, "302 characters; 254"),
        ({"company": "c" * 201}, "201 characters; 200"),
        ({"name": "line\nbreak"}, "can't be printed"),
        ({"password": ""}, "password is missing"),
        ({"password": "p" * 1025}, "1025 characters; 1024"),
    ],
)
def test_a_wrong_field_is_named(changed, reason):
    fields = {"name": "Ada", "email": "a@example.org", "password": "p", "company": ""} | changed
    with pytest.raises(InvalidArgument, match=reason):
        check_user(CreateRequest(**fields))


def test_pages_are_bounded_and_their_tokens_opaque():
    assert [page_size(n) for n in (0, 7, 10**6)] == [100, 7, 1000]
    with pytest.raises(InvalidArgument):
        page_size(-1)
    assert page_token(0) == ""
    assert page_position("") == 0
    for position in (1, 99, 2**63 - 1):
        assert page_position(page_token(position)) == position
    for bad in ("x", "é", "cDA", page_token(2**63), page_token(5) + "=", "A" * 999):
        with pytest.raises(InvalidArgument):
            page_position(bad)


def test_the_database_is_sqlite_unless_the_environment_says_otherwise():
    assert str(database_url({})) == "sqlite+aiosqlite:///shippy.sqlite3"
    assert database_url({"SHIPPY_SQLITE": "/tmp/x?y"}).database == "/tmp/x?y"
    assert database_url({"DATABASE_URL": "postgres://h/n?sslmode=require"}).query == {"ssl": "require"}


def test_the_parts_of_a_database_url_are_escaped():
    parts = {"DB_HOST": "db", "DB_USER": "a:d@a", "DB_PASSWORD": "p/@:#?", "DB_NAME": "users", "DB_PORT": "6432"}
    url = database_url(parts)
    assert (url.username, url.password, url.host, url.port) == ("a:d@a", "p/@:#?", "db", 6432)
    assert database_url({"DATABASE_URL": url.render_as_string(hide_password=False)}) == url


@pytest.mark.parametrize(
    "environ",
    [
        {"DATABASE_URL": "secret"},
        {"DATABASE_URL": "mysql://ada:secret@h/n"},
        {"DB_USER": "ada", "DB_PASSWORD": "secret"},
        {"DB_HOST": "h", "DB_PORT": "http"},
        {"SHIPPY_EVENTS": "loud"},
        {"SHIPPY_OUTBOX": "yes"},
        {"JWT_KEY": "secret"},
    ],
)
def test_a_wrong_variable_is_a_clear_error_that_quotes_no_secret(environ):
    with pytest.raises(ConfigurationError) as wrong:
        Config.from_env({"JWT_KEY": KEY} | environ)
    assert "secret" not in str(wrong.value).replace("import secrets; print(secrets.", "")


async def test_a_caller_who_gives_up_leaves_no_user_whom_nobody_was_told_of():
    announced = []
    stored, go_on = asyncio.Event(), asyncio.Event()

    class SlowStore:
        async def add(self, name, company, email, password_hash):
            stored.set()
            await go_on.wait()
            return User(name=name)

    async def announce(user):
        announced.append(user.name)

    users = Users()
    async with Passwords() as passwords:
        users.open(SlowStore(), passwords, None, announce)
        create = asyncio.create_task(users.create(new_user("Ada")))
        await stored.wait()
        create.cancel()
        await asyncio.wait({create})
        go_on.set()
        await users.close()
    assert announced == ["Ada"]


def new_user(name):
    return CreateRequest(name=name, email="ada@example.org", password="correct horse")
