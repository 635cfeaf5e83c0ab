"""The program. It exits 0 when all went well, 1 when a call failed, 2 when it was called wrongly."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from typing import TYPE_CHECKING

from ketch import AlreadyExists, Client, KetchError, add_flags
from ketch.errors import ConfigurationError

from ..user.v1.user_ketch import UserServiceStub
from ..user.v1.user_pb2 import AuthRequest, CreateRequest, GetAllRequest, User

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Failed(Exception):
    """A step did not work; its text says which and why."""


def main() -> None:
    """Create a user, show all, sign in."""
    try:
        asyncio.run(_run(_parser().parse_args()))
    except Failed as failed:
        _say(str(failed))
        sys.exit(1)
    except ConfigurationError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="shippy-user-cli", description="Create a user, show all, sign in.")
    parser.add_argument("--name", default="Ewan Valentine", help="default: %(default)s")
    parser.add_argument("--email", default="ewan.valentine89@gmail.com", help="default: %(default)s")
    parser.add_argument("--company", default="BBC", help="default: %(default)s")
    # Whoever may list processes sees their arguments, so there is a variable too.
    parser.add_argument("--password", help="default: SHIPPY_PASSWORD from the environment, or else the tutorial's")
    add_flags(parser)
    return parser


async def _run(flags: argparse.Namespace) -> None:
    password = flags.password or os.environ.get("SHIPPY_PASSWORD") or "test123"
    async with Client.from_env(flags, name="go.micro.srv.user-cli") as client:
        users = client.stub(UserServiceStub)
        await _create(
            users, CreateRequest(name=flags.name, email=flags.email, password=password, company=flags.company)
        )
        try:
            async for user in _all(users):
                _say(f"{user.id} {user.name} <{user.email}> {user.company}")
        except KetchError as error:
            raise Failed(f"Could not list users: {error}") from error
        await _sign_in(users, flags.email, password)


async def _create(users: UserServiceStub, request: CreateRequest) -> None:
    try:
        reply = await users.create(request)
    except AlreadyExists:
        _say(f"Already there: {request.email}; going on to sign in")
    except KetchError as error:
        raise Failed(f"Could not create: {error}") from error
    else:
        _say(f"Created: {reply.user.id}")


async def _all(users: UserServiceStub) -> AsyncIterator[User]:
    request = GetAllRequest()
    while True:
        page = await users.get_all(request)
        for user in page.users:
            yield user
        if not page.next_page_token:
            return
        request = GetAllRequest(page_token=page.next_page_token)


async def _sign_in(users: UserServiceStub, email: str, password: str) -> None:
    try:
        reply = await users.auth(AuthRequest(email=email, password=password))
    except KetchError as error:
        raise Failed(f"Could not authenticate: {error}") from error
    _say(f"Your access token is: {reply.token.token}")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
