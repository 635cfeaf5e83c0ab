"""What is known about the call or the event in hand: its metadata, its deadline, its message.

A server or a consumer sets it around a handler; a handler reads it, and says there what goes with its reply:

    from ketch import context
    here = context.current()
    here.metadata.get("x-request-id")
    here.trailers["x-cost"] = "3"

A caller who wants what came with a reply says so with `with context.ReplyMetadata() as received`.
"""

from __future__ import annotations

import base64
import binascii
import time
from contextvars import ContextVar, Token
from types import MappingProxyType
from typing import TYPE_CHECKING, Self

from .peer import Peer, PeerIdentity

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, MutableMapping
    from types import TracebackType

    from .message import Message

_EMPTY: Mapping[str, str] = MappingProxyType({})


class Context:
    """The circumstances of one call or event; read-only for handlers, but for what goes with a call's reply.

    Attributes:
        name: the topic of an event, the method of a call (`/pkg.Service/Method`), "" outside both.
        deadline: on `time.monotonic()`'s clock, in seconds; None where the caller set none. Calls made from
            within a handler inherit it.
        message: the event as it came, with its id, type, source and time; None for a call.
        attempt: which delivery of an event this is, from 1.
        peer: the caller's address, "" for an event; over mutual TLS a `Peer`, which knows who it is.
        compressed: whether the request, or the latest message of a stream, came compressed.
        sent_metadata, sent_trailers: `reply_metadata` and `trailers` as far as a handler wrote any, else None; for
            transports.
        compress: whether replies that follow are compressed where the caller takes that: None as the transport is
            configured; a handler may set it.
    """

    __slots__ = (
        "_metadata",
        "attempt",
        "compress",
        "compressed",
        "deadline",
        "message",
        "name",
        "peer",
        "sent_metadata",
        "sent_trailers",
    )

    def __init__(
        self,
        name: str = "",
        metadata: Mapping[str, str] | None = None,
        message: Message | None = None,
        attempt: int = 1,
        deadline: float | None = None,
        peer: str = "",
    ) -> None:
        self.name = name
        self._metadata = metadata
        self.message = message
        self.attempt = attempt
        self.deadline = deadline
        self.peer = peer
        self.compressed = False
        self.compress: bool | None = None
        self.sent_trailers: MutableMapping[str, str | bytes] | None = None
        self.sent_metadata: MutableMapping[str, str | bytes] | None = None

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the peer sent along, names in lower case; empty outside a call.

        It is never forwarded by itself, so a caller's credentials stay where they were presented.
        """
        if self._metadata is None:
            # Most handlers never ask, so an event's are only then told apart from its attributes.
            self._metadata = self.message.metadata if self.message is not None else _EMPTY
        return self._metadata

    @property
    def trailers(self) -> MutableMapping[str, str | bytes]:
        """Metadata to be sent after a call's reply; a server's handler writes into it.

        Names are lower case; bytes go under names that end in `-bin`.
        """
        if self.sent_trailers is None:
            self.sent_trailers = {}
        return self.sent_trailers

    @property
    def reply_metadata(self) -> MutableMapping[str, str | bytes]:
        """Metadata to be sent ahead of a call's first reply; once that is on its way it can't be written any more."""
        if self.sent_metadata is None:
            self.sent_metadata = {}
        return self.sent_metadata

    def take_reply_metadata(self) -> Mapping[str, str | bytes] | None:
        """Return the metadata to be sent ahead of the reply, None for none; from now on nobody writes into it."""
        taken, self.sent_metadata = self.sent_metadata, _SENT
        return taken

    @property
    def peer_identity(self) -> PeerIdentity | None:
        """Who the caller's certificate says it is, verified; None where it presented none (it needs mutual TLS)."""
        return self.peer.identity if isinstance(self.peer, Peer) else None

    def remaining(self) -> float | None:
        """Return the seconds left until the deadline, never negative, or None where there is none."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())


class _Sent(dict[str, "str | bytes"]):
    """Stands for metadata that is on its way."""

    def __setitem__(self, name: str, value: str | bytes) -> None:
        raise RuntimeError(f"{name}: the metadata ahead of the reply has been sent; write into `trailers` instead")


_SENT = _Sent()


class ReplyMetadata:
    """What servers send along with their replies, for a caller who asks.

        with context.ReplyMetadata() as received:
            reply = await users.get(request)
        received.metadata, received.trailers

    Each unary call that is made within it, by the same task or one that it started there, fills it anew; within another
    one, both are filled. The replies of a streaming call have theirs as attributes, with no need for this.

    Attributes:
        metadata: what came ahead of the reply (gRPC's initial metadata), names in lower case.
        trailers: what came after it, or with the error (trailing metadata).
    """

    __slots__ = ("_outer", "_token", "metadata", "trailers")

    def __init__(self) -> None:
        self.metadata: Mapping[str, str] = _EMPTY
        self.trailers: Mapping[str, str] = _EMPTY
        self._outer: ReplyMetadata | None = None
        self._token: Token[ReplyMetadata | None] | None = None

    def fill(self, metadata: Mapping[str, str], trailers: Mapping[str, str]) -> None:
        """Take in what came with a reply; the transport's part."""
        self.metadata, self.trailers = metadata, trailers
        if self._outer is not None:
            self._outer.fill(metadata, trailers)

    def __enter__(self) -> Self:
        self._outer = _received.get()
        self._token = _received.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._token is not None:
            _received.reset(self._token)
            self._token = None


def from_base64(value: str) -> list[bytes]:
    """Return the bytes of a `-bin` entry of metadata: one item for each time that it was sent.

    Raises:
        ValueError: it isn't base64.
    """
    try:
        return [base64.b64decode(text + "=" * (-len(text) % 4), validate=True) for text in value.split(",")]
    except binascii.Error as error:
        raise ValueError("a binary value isn't base64") from error


def to_base64(value: bytes) -> str:
    """Return bytes as a `-bin` entry of metadata has them: base64 without padding."""
    return base64.b64encode(value).decode().rstrip("=")


def text_metadata(metadata: Mapping[str, str | bytes] | None) -> dict[str, str]:
    """Return metadata to be sent as a new dict of texts, bytes as base64."""
    if not metadata:
        return {}
    return {name: to_base64(value) if isinstance(value, bytes) else value for name, value in metadata.items()}


class _Nowhere(Context):
    """The context outside any handler: there is no reply that anything could go with."""

    __slots__ = ()

    @property
    def trailers(self) -> MutableMapping[str, str | bytes]:
        raise RuntimeError("there is no reply to send metadata with: this isn't a handler")

    @property
    def reply_metadata(self) -> MutableMapping[str, str | bytes]:
        raise RuntimeError("there is no reply to send metadata with: this isn't a handler")


_NONE = _Nowhere()
_current: ContextVar[Context] = ContextVar("ketch", default=_NONE)
_received: ContextVar[ReplyMetadata | None] = ContextVar("ketch reply metadata", default=None)

#: Return what a caller wants filled with the metadata of replies, None where nobody asked.
wanted: Callable[[], ReplyMetadata | None] = _received.get


def current() -> Context:
    """Return the context of the handler that is running, or an empty one outside any handler."""
    return _current.get()


#: Make a context the current one; hand the token to `leave` where the task outlives the call.
enter: Callable[[Context], Token[Context]] = _current.set


def leave(token: Token[Context]) -> None:
    """Restore what was current before `enter`."""
    _current.reset(token)
