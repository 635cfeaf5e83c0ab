"""Access: who we are to etcd, by a token that a user's password is exchanged for.

See etcd.io/docs/v3.5/op-guide/authentication.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from ...errors import DeadlineExceeded, FailedPrecondition, InvalidArgument, Unauthenticated
from .etcd_pb2 import AuthenticateRequest, AuthenticateResponse

if TYPE_CHECKING:
    from ...errors import StatusError
    from ...transport import Channel
    from .config import Config

log = logging.getLogger("ketch.registry")

_AUTHENTICATE = "/etcdserverpb.Auth/Authenticate"
_PROTOBUF = "application/protobuf"
#: What etcd answers with INVALID_ARGUMENT when it wants a token, or a newer one.
_WANTED = ("user name is empty", "revision in header is old")


class Access:
    """The token, asked for when it is needed; one call does so for all that wait for it."""

    def __init__(self, config: Config) -> None:
        self._username = config.username
        self._password = config.password
        self._token: str | None = None
        self._lock = asyncio.Lock()

    async def metadata(self, channel: Channel, timeout: float) -> dict[str, str]:
        """Return what goes with a call.

        Raises:
            StatusError: the token was refused, or didn't come in time.
        """
        if not self._username:
            return {}
        if self._token is None:
            try:
                async with asyncio.timeout(timeout), self._lock:
                    if self._token is None:
                        self._token = await self._ask(channel, timeout)
            except TimeoutError as error:
                raise DeadlineExceeded("the deadline passed before there was a token") from error
        return {"token": self._token} if self._token else {}

    async def _ask(self, channel: Channel, timeout: float) -> str:
        request = AuthenticateRequest(name=self._username, password=self._password)
        try:
            body = await channel.unary(
                _AUTHENTICATE, request.SerializeToString(), content_type=_PROTOBUF, timeout=timeout
            )
        except FailedPrecondition:
            log.info("etcd asks nobody who they are; the user in its URL isn't needed")
            return ""
        return AuthenticateResponse.FromString(body).token

    def renew(self, error: StatusError, used: dict[str, str]) -> bool:
        """Tell whether a call that failed so may do better with a new token, which is asked for next then."""
        wanted = isinstance(error, Unauthenticated) or (
            isinstance(error, InvalidArgument) and any(sign in error.message for sign in _WANTED)
        )
        if not self._username or not wanted:
            return False
        if used.get("token", "") == self._token:
            self._token = None
        return True


def hint(error: StatusError) -> str:
    """Return what to do about a refusal, "" where it isn't about who we are."""
    if "user name is empty" in error.message:
        return "; it wants a user: etcd://user:password@host:port"
    if "authentication failed" in error.message:
        return "; check the user and the password in its URL"
    if "permission denied" in error.message:
        return "; the user's role needs to read and write the prefix"
    return ""
