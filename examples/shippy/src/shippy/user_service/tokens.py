"""Access tokens: JWT (RFC 7519), signed with HS256. They say whose they are and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

import jwt

from ketch import Unauthenticated

ISSUER: Final = "go.micro.srv.user"
LIFETIME: Final = timedelta(hours=72)

_ALGORITHM = "HS256"
_LONGEST = 4096  # characters; ours have about 200


class Tokens:
    """Issues tokens and says whose they are."""

    def __init__(self, key: str) -> None:
        self._key = key

    def issue(self, user_id: str) -> str:
        """Return a token for a user, good for 72 hours."""
        now = datetime.now(UTC)
        claims = {"sub": user_id, "iss": ISSUER, "iat": now, "exp": now + LIFETIME}
        return jwt.encode(claims, self._key, algorithm=_ALGORITHM)

    def subject(self, token: str) -> str:
        """Return the id of the user whose token it is.

        Raises:
            Unauthenticated: it is expired, tampered with, somebody else's or no token at all.
        """
        if not token or len(token) > _LONGEST:
            raise Unauthenticated("the token is too long" if token else "the token is empty")
        try:
            claims = jwt.decode(
                token,
                self._key,
                algorithms=[_ALGORITHM],
                issuer=ISSUER,
                options={"require": ["exp", "iss", "sub"]},
            )
        except jwt.ExpiredSignatureError:
            raise Unauthenticated("the token is expired; sign in again") from None
        except (jwt.PyJWTError, ValueError):
            # ValueError: what PyJWT lets through of malformed numbers and text.
            raise Unauthenticated("the token isn't valid") from None
        return str(claims["sub"])
