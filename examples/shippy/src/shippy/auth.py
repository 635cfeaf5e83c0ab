"""The middleware that lets only callers with a good token in, for any service but user-service itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ketch import Call, Middleware, Next, StatusError, Unauthenticated, Unavailable
from ketch.call import Kind

from .user.v1.user_pb2 import ValidateTokenRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .user.v1.user_ketch import UserServiceStub

#: Seconds that user-service has to judge a token.
_TIMEOUT = 2.0


def require_token(users: Callable[[], UserServiceStub]) -> Middleware:
    """Return a middleware that asks user-service about the token of each call served.

    The token comes as metadata `token`, or `authorization: Bearer …`. It is passed on to nobody else.
    A call without a good one ends UNAUTHENTICATED, one whose token can't be judged now UNAVAILABLE.

    Args:
        users: returns the stub to ask with; called late, because a service and its middleware are made together.
    """

    async def check(call: Call, call_next: Next) -> object:
        if call.kind is Kind.SERVE:
            await _validate(users(), _token(call.metadata))
        return await call_next(call)

    return check


def _token(metadata: Mapping[str, str]) -> str:
    if token := metadata.get("token", ""):
        return token
    scheme, _, token = metadata.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated("no token: send metadata `token`, or `authorization: Bearer …`")
    return token.strip()


async def _validate(users: UserServiceStub, token: str) -> None:
    try:
        reply = await users.validate_token(ValidateTokenRequest(token=token), timeout=_TIMEOUT)
    except Unauthenticated:
        raise
    except StatusError as error:
        raise Unavailable("user-service can't judge the token now; try again") from error
    if not reply.token.valid:
        raise Unauthenticated("the token isn't valid")
