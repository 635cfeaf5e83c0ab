"""The headers of requests and replies.

request   ketch-method: /pkg.Service/Method      content-type: application/protobuf      ketch-timeout: milliseconds
and the caller's metadata, as it is
reply     none for one that is just a reply, else
ketch-status: gRPC's code                ketch-message: percent-encoded          ketch-details: base64, with commas
ketch-head-NAME, ketch-tail-NAME: metadata sent ahead of the reply, and after it
ketch-more: 1                            the reply goes on in the next message
ketch-refused: 1                         no handler saw the request
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from ...grpc.metadata import collect, fields

if TYPE_CHECKING:
    from ...transport import Metadata

#: What the names of the headers here begin with; no metadata's does.
OWN: Final = "ketch-"
METHOD: Final = "ketch-method"
TIMEOUT: Final = "ketch-timeout"
STATUS: Final = "ketch-status"
MESSAGE: Final = "ketch-message"
DETAILS: Final = "ketch-details"
HEAD: Final = "ketch-head-"
TAIL: Final = "ketch-tail-"
MORE: Final = "ketch-more"
#: Set beside a status where no handler saw the request.
REFUSED: Final = "ketch-refused"
CONTENT_TYPE: Final = "content-type"
#: Asks for a pipe; the answer's reply subject is its other end.
PIPE: Final = "ketch-pipe"

#: Where services are called, by name; where single instances are; where it is said which calls are wanted no more.
SERVICES: Final = "ketch-rpc"
INSTANCES: Final = "ketch-instance"
CANCELS: Final = "ketch-cancel"
#: The queue group of a service's instances.
QUEUE: Final = "ketch"

#: Bytes of an error's message that travel.
_LONGEST: Final = 4096


def lines(metadata: Metadata, prefix: str = "") -> bytes:
    """Return metadata as lines of headers, one for each name: of two equal names the reader takes the first.

    Raises:
        Internal: a name or value can't be sent.
    """
    return b"".join(f"{prefix}{name}: {value}\r\n".encode() for name, value in collect(fields(metadata)).items())


def encoded(message: str) -> str:
    """Return an error's message as a header's value."""
    return quote(message[:_LONGEST], safe=" !\"#$&'()*+,/:;<=>?@[]^`{|}~")


def token(name: str) -> str:
    """Return a service's name as one token of a subject, or several for its dots; two names never share one."""
    parts = [quote(part, safe="").replace("%", "=") or "=" for part in name.split(".")]
    return ".".join(part.replace("*", "=2A") for part in parts)


def cancels(subject: str) -> str:
    """Return the subject that says which calls to a subject are wanted no more."""
    return f"{CANCELS}.{subject.removeprefix('ketch-')}"
