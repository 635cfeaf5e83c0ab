"""Every exception that ketch raises; no other module defines one.

KetchError
├── ConfigurationError           the program is set up wrongly; exit code 2
│   ├── PluginNotFound           no broker, registry, transport or codec of that name
│   ├── MissingExtra             the plugin is known, its driver isn't installed
│   ├── CapabilityError          the broker can't give what a topic or subscriber needs
│   └── HandlerError             a handler's signature doesn't fit what it is registered for
├── NotRunning                   used before start or after stop
├── Retry                        raised by a handler: try this event again, later
├── Reject                       raised by a handler: never try this event again
├── CodecError                   a body and its type don't fit together
│   └── UnknownContentType       no codec speaks it
├── BrokerError
│   ├── BrokerUnavailable        can't be reached within the timeout; the message was not taken
│   ├── SubscriptionRefused      the broker won't let us subscribe
│   └── MessageTooLarge          over the broker's or the receiver's limit
├── RegistryError                the registry can't be read or written
├── TransportError
│   ├── AddressUnavailable       the address can't be listened on
│   └── ProtocolError            a peer broke its protocol's rules; its connection ends
└── StatusError                  the end of a call that did not succeed; crosses the wire as itself
    └── Cancelled … Unauthenticated, one for each of gRPC's sixteen status codes
        └── Unreachable          an Unavailable: no server has looked at the call
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class KetchError(Exception):
    """Anything that ketch raises on purpose."""


class ConfigurationError(KetchError):
    """The program is set up wrongly; starting again won't help, changing the named setting will."""


class PluginNotFound(ConfigurationError):
    """No plugin of that kind has that name."""


class MissingExtra(ConfigurationError):
    """The plugin exists, but the package it drives isn't installed."""


class CapabilityError(ConfigurationError):
    """A topic or a subscriber needs what the configured broker can't give.

    Attributes:
        needs: names of `ketch.broker.Capabilities` that would do.
    """

    def __init__(self, message: str, *needs: str) -> None:
        super().__init__(message)
        self.needs = needs


class HandlerError(ConfigurationError):
    """A handler's signature doesn't fit what it is registered for."""


class NotRunning(KetchError):
    """A service, client or publisher is used before it was started or after it was stopped."""


class Retry(KetchError):
    """Raised by a handler: this event can't be handled now, try it again. It counts as an attempt.

    Attributes:
        after: seconds to wait before that; None for the retry policy's backoff.
    """

    def __init__(self, message: str = "the handler asks for another try", *, after: float | None = None) -> None:
        super().__init__(message)
        self.after = None if after is None else max(0.0, after)


class Reject(KetchError):
    """Raised by a handler: this event can never be handled. It goes to the dead letters with the message as reason."""


class CodecError(KetchError):
    """A payload can't be encoded, or a body can't be decoded, as the type it should have."""


class UnknownContentType(CodecError):
    """No installed codec speaks the content type."""


class BrokerError(KetchError):
    """A broker failed."""


class BrokerUnavailable(BrokerError):
    """The broker can't be reached within the timeout; what was to be published was not taken."""


class SubscriptionRefused(BrokerError):
    """The broker won't let us subscribe."""


class MessageTooLarge(BrokerError):
    """A message is over the broker's limit; it was not sent."""


class RegistryError(KetchError):
    """The registry can't be read or written."""


class TransportError(KetchError):
    """A transport failed outside any call."""


class AddressUnavailable(TransportError):
    """The address can't be listened on: taken, not ours, or not allowed."""


class ProtocolError(TransportError):
    """A peer broke its protocol's rules; its connection ends. `code` is the protocol's own (RFC 9113 section 7)."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Code(IntEnum):
    """gRPC's status codes (grpc.github.io/grpc/core/md_doc_statuscodes.html)."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class StatusError(KetchError):
    """A call ended with a status other than OK. Raise a subclass to answer with its code.

    Attributes:
        code: the status code; a subclass of yours inherits its parent's.
        message: what the peer is told. Nothing secret belongs here.
        details: serialized `google.protobuf.Any` messages, as `google.rpc.Status.details` carries them.
        metadata: trailing metadata that travels with the status.
    """

    code: ClassVar[Code] = Code.UNKNOWN

    def __init__(
        self,
        message: str = "",
        *,
        details: Sequence[bytes] = (),
        metadata: Mapping[str, str | bytes] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.details = tuple(details)
        self.metadata: Mapping[str, str | bytes] = metadata or {}


class Cancelled(StatusError):
    """The caller gave the call up."""

    code = Code.CANCELLED


class Unknown(StatusError):
    """The handler failed in a way that it did not describe."""

    code = Code.UNKNOWN


class InvalidArgument(StatusError):
    """The request is wrong whatever the state of the system."""

    code = Code.INVALID_ARGUMENT


class DeadlineExceeded(StatusError):
    """The deadline passed first; the work may have been done all the same."""

    code = Code.DEADLINE_EXCEEDED


class NotFound(StatusError):
    """What was asked for isn't there."""

    code = Code.NOT_FOUND


class AlreadyExists(StatusError):
    """What was to be created is there already."""

    code = Code.ALREADY_EXISTS


class PermissionDenied(StatusError):
    """The caller is known and may not do this."""

    code = Code.PERMISSION_DENIED


class ResourceExhausted(StatusError):
    """A quota, a size limit or memory is used up."""

    code = Code.RESOURCE_EXHAUSTED


class FailedPrecondition(StatusError):
    """The system isn't in the state that the call needs."""

    code = Code.FAILED_PRECONDITION


class Aborted(StatusError):
    """A conflict, such as a lost race; retry from the start of the transaction."""

    code = Code.ABORTED


class OutOfRange(StatusError):
    """Past the end of what there is."""

    code = Code.OUT_OF_RANGE


class Unimplemented(StatusError):
    """The peer doesn't serve this method, content type or compression."""

    code = Code.UNIMPLEMENTED


class Internal(StatusError):
    """An invariant is broken."""

    code = Code.INTERNAL


class Unavailable(StatusError):
    """The peer can't take the call now; retrying may help."""

    code = Code.UNAVAILABLE


class Unreachable(Unavailable):
    """No server has looked at the call, so making it again does no harm: nobody is there, or it was refused unseen."""


class DataLoss(StatusError):
    """Data is lost or corrupted for good."""

    code = Code.DATA_LOSS


class Unauthenticated(StatusError):
    """The caller did not prove who it is."""

    code = Code.UNAUTHENTICATED


_BY_CODE: dict[int, type[StatusError]] = {error.code: error for error in StatusError.__subclasses__()}


def status_error(
    code: int,
    message: str,
    *,
    details: Sequence[bytes] = (),
    metadata: Mapping[str, str | bytes] | None = None,
) -> StatusError:
    """Return the exception for a status code; a code that gRPC doesn't know is `Unknown`."""
    return _BY_CODE.get(code, Unknown)(message, details=details, metadata=metadata)
