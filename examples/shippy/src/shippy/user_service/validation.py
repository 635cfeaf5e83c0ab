"""What a request may hold, and what its sender is told otherwise."""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING, Final

from ketch import InvalidArgument

if TYPE_CHECKING:
    from ..user.v1.user_pb2 import CreateRequest

#: Longest, in characters. RFC 5321 section 4.5.3.1.3 leaves 254 to an address.
LIMITS: Final = {"name": 200, "company": 200, "email": 254, "password": 1024}

#: Something before one @ and something behind it; whether it exists only a mail can tell.
_EMAIL = re.compile(r"[^@\s]{1,64}@[^@\s]+")

_DEFAULT_PAGE = 100
_LARGEST_PAGE = 1000
_LONGEST_TOKEN = 64
_LARGEST_POSITION = 2**63 - 1


def check_user(request: CreateRequest) -> None:
    """Check the fields of a new user; the company may be empty.

    Raises:
        InvalidArgument: one is missing, too long or malformed. The message never quotes the password.
    """
    for name, limit in LIMITS.items():
        value: str = getattr(request, name)
        if not value.strip() and name != "company":
            raise InvalidArgument(f"{name} is missing")
        if len(value) > limit:
            raise InvalidArgument(f"{name} has {len(value)} characters; {limit} are allowed")
        if name != "password" and not value.isprintable():
            raise InvalidArgument(f"{name} holds a character that can't be printed")
    if not _EMAIL.fullmatch(request.email):
        raise InvalidArgument("email is no e-mail address: it takes something@somewhere")


def page_size(asked: int) -> int:
    """Return how many users a page holds: 100 unless asked otherwise, at most 1000.

    Raises:
        InvalidArgument: it is negative.
    """
    if asked < 0:
        raise InvalidArgument(f"page_size is {asked}; 0 takes the default of {_DEFAULT_PAGE}")
    return min(asked or _DEFAULT_PAGE, _LARGEST_PAGE)


def page_token(position: int) -> str:
    """Return the token of the page behind a position; "" for 0, where there is none."""
    return base64.urlsafe_b64encode(b"p%d" % position).decode().rstrip("=") if position else ""


def page_position(token: str) -> int:
    """Return the position that a page's token stands for; 0 for none.

    Raises:
        InvalidArgument: it is no token of ours.
    """
    if not token:
        return 0
    try:
        text = base64.urlsafe_b64decode(token[:_LONGEST_TOKEN].encode() + b"==").decode("ascii")
    except (binascii.Error, ValueError):
        text = ""
    position = int(text[1:]) if re.fullmatch(r"p[0-9]{1,19}", text) else 0
    if not 0 < position <= _LARGEST_POSITION or page_token(position) != token:
        raise InvalidArgument("page_token is no next_page_token of this service")
    return position
