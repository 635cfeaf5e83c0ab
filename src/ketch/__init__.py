"""ketch: event-driven microservices, with one protobuf contract for events and calls."""

from . import context, errors
from .call import Call, Kind, Middleware, Next
from .client import Client
from .errors import (
    Aborted,
    AlreadyExists,
    Cancelled,
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    KetchError,
    NotFound,
    OutOfRange,
    PermissionDenied,
    Reject,
    ResourceExhausted,
    Retry,
    StatusError,
    Unauthenticated,
    Unavailable,
    Unimplemented,
    Unknown,
)
from .message import Message
from .options import Options
from .policy import CallPolicy
from .request import Requester, RequestTopic
from .retry import RetryPolicy
from .service import Service
from .settings import add_flags
from .topic import Publisher, Topic

__all__ = [
    "Aborted",
    "AlreadyExists",
    "Call",
    "CallPolicy",
    "Cancelled",
    "Client",
    "DataLoss",
    "DeadlineExceeded",
    "FailedPrecondition",
    "Internal",
    "InvalidArgument",
    "KetchError",
    "Kind",
    "Message",
    "Middleware",
    "Next",
    "NotFound",
    "Options",
    "OutOfRange",
    "PermissionDenied",
    "Publisher",
    "Reject",
    "RequestTopic",
    "Requester",
    "ResourceExhausted",
    "Retry",
    "RetryPolicy",
    "Service",
    "StatusError",
    "Topic",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Unknown",
    "add_flags",
    "context",
    "errors",
]
