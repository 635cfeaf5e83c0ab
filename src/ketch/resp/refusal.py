"""The server's errors, as ours (redis.io/docs/latest/develop/reference/protocol-spec, "Simple errors")."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import BrokerError, BrokerUnavailable

if TYPE_CHECKING:
    from hiredis import ReplyError

#: A server that answers with these is up, but not, or no longer, the one to talk to.
_AWAY = ("LOADING", "MASTERDOWN", "READONLY", "CLUSTERDOWN")

_LOGIN = ("NOAUTH", "WRONGPASS", "ERR Client sent AUTH", "ERR AUTH", "ERR invalid password")


def away(error: ReplyError) -> bool:
    """Tell whether a connection is worth making anew."""
    return str(error).startswith(_AWAY)


def refused_login(error: ReplyError) -> bool:
    """Tell whether it is about who we are."""
    return str(error).startswith(_LOGIN)


def no_group(error: ReplyError) -> bool:
    """Tell whether a stream or its group is gone; from within a script the code may come later in the text."""
    return any(sign in str(error) for sign in ("NOGROUP", "UNBLOCKED", "no such key"))


def refusal(location: str, what: str, error: ReplyError) -> BrokerError:
    """Return what to raise when the server refuses something."""
    if away(error):
        return BrokerUnavailable(f"{location}: {what}: {error}")
    hint = "; the server's memory is full, see `maxmemory`" if str(error).startswith("OOM") else ""
    return BrokerError(f"{location}: {what}: {error}{hint}")
