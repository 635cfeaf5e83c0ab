"""Users: what user-service answers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ketch import NotFound, Unauthenticated

from ..user.v1.user_ketch import UserService
from ..user.v1.user_pb2 import (
    AuthRequest,
    AuthResponse,
    CreateRequest,
    CreateResponse,
    GetAllRequest,
    GetAllResponse,
    GetRequest,
    GetResponse,
    Token,
    User,
    ValidateTokenRequest,
    ValidateTokenResponse,
)
from .validation import LIMITS, check_user, page_position, page_size, page_token

if TYPE_CHECKING:
    from .announcing import Announce
    from .passwords import Passwords
    from .store import Store
    from .tokens import Tokens


class Users(UserService):
    """Serves the contract. `open` comes before the first call."""

    def open(self, store: Store, passwords: Passwords, tokens: Tokens, announce: Announce) -> None:
        """Give it what it works with."""
        self._store = store
        self._passwords = passwords
        self._tokens = tokens
        self._announce = announce
        self._storing: set[asyncio.Task[User]] = set()

    async def close(self) -> None:
        """Wait for users who are being stored, though their callers have gone."""
        await asyncio.gather(*self._storing, return_exceptions=True)  # each caller was told, if still there

    async def create(self, request: CreateRequest, /) -> CreateResponse:
        """Store a new user, then announce it."""
        check_user(request)
        hashed = await self._passwords.hash(request.password)
        # A caller who gives up in between must not leave a user behind whom nobody was told of.
        storing = asyncio.create_task(self._store_and_announce(request, hashed))
        self._storing.add(storing)
        storing.add_done_callback(self._storing.discard)
        return CreateResponse(user=await asyncio.shield(storing))

    async def _store_and_announce(self, request: CreateRequest, hashed: str) -> User:
        user = await self._store.add(request.name, request.company, request.email, hashed)
        await self._announce(user)
        return user

    async def get(self, request: GetRequest, /) -> GetResponse:
        """Return one user."""
        if user := await self._store.find(request.id):
            return GetResponse(user=user)
        raise NotFound(f"no user {request.id[:36]!r}")

    async def get_all(self, request: GetAllRequest, /) -> GetAllResponse:
        """Return a page of users."""
        size, after = page_size(request.page_size), page_position(request.page_token)
        users, last = await self._store.page(after, size)
        return GetAllResponse(users=users, next_page_token=page_token(last))

    async def auth(self, request: AuthRequest, /) -> AuthResponse:
        """Exchange e-mail and password for a token; what was wrong, and how long it took, doesn't say which."""
        found = None
        if len(request.email) <= LIMITS["email"] and len(request.password) <= LIMITS["password"]:
            found = await self._store.credentials(request.email)
        user_id, hashed = found or ("", None)
        if not await self._passwords.verify(request.password[: LIMITS["password"]], hashed):
            raise Unauthenticated("e-mail or password is wrong")
        if hashed is not None and self._passwords.outdated(hashed):
            await self._store.replace_hash(user_id, hashed, await self._passwords.hash(request.password))
        return AuthResponse(token=Token(token=self._tokens.issue(user_id), valid=True))

    async def validate_token(self, request: ValidateTokenRequest, /) -> ValidateTokenResponse:
        """Say whose a token is."""
        user_id = self._tokens.subject(request.token)
        return ValidateTokenResponse(token=Token(token=request.token, valid=True), user_id=user_id)
