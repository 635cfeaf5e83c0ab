"""Whether a header list is a well-formed request, response or trailer (RFC 9113 section 8)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .compression import Headers

_CONNECTION: Final = frozenset({"connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade"})
_REQUEST: Final = frozenset({":method", ":scheme", ":path", ":authority"})
_REQUIRED: Final = frozenset({":method", ":scheme", ":path"})
_RESPONSE: Final = frozenset({":status"})
#: Section 8.2.1: no control characters, no space, no upper case, nothing above ASCII.
_NAME: Final = re.compile(r"[!-9;-@\[-~]+")
_VALUE: Final = re.compile(r"[^\x00\r\n]*")


def request_problem(headers: Headers) -> str:
    """Return what is wrong with a request's headers, "" if nothing is."""
    if headers.problem is None:
        headers.problem = _check(headers, _REQUEST) or _check_request(headers)
    return headers.problem


def response_problem(headers: Headers) -> str:
    """Return what is wrong with a response's headers, "" if nothing is."""
    if headers.problem is None:
        headers.problem = _check(headers, _RESPONSE) or _check_status(headers)
    return headers.problem


def trailer_problem(headers: Headers) -> str:
    """Return what is wrong with trailers, "" if nothing is."""
    if headers.trailer_problem is None:
        headers.trailer_problem = _check(headers, frozenset())
    return headers.trailer_problem


def later_problem(headers: Headers, *, client: bool, end: bool) -> str:
    """Return what is wrong with headers on a stream that is open, "" if nothing is: a response's, or trailers."""
    if client and not (end and (not headers.fields or headers.fields[0][0] != ":status")):
        # The first list is a response's, and so is each that comes before it with a status of 1xx.
        return response_problem(headers)
    return trailer_problem(headers) if end else "trailers that don't end the stream"


def _length(headers: Headers) -> int:
    """Return the announced length of the body in bytes, -1 for none, -2 for one that is no number."""
    for name, value in headers.fields:
        if name == "content-length":
            return int(value) if value.isascii() and value.isdigit() and len(value) < 19 else -2  # noqa: PLR2004 - 2**63
    return -1


def _check(headers: Headers, allowed: frozenset[str]) -> str:
    seen: set[str] = set()
    regular = False
    for name, value in headers.fields:
        if name.startswith(":"):
            if regular or name in seen or name not in allowed:
                return f"misplaced, repeated or unknown pseudo-header {name[:40]!r}"
            seen.add(name)
        else:
            regular = True
            if problem := _check_field(name, value):
                return problem
        if not _VALUE.fullmatch(value) or value != value.strip(" \t"):
            return f"value of {name[:40]!r} has characters that it must not"
    return ""


def _check_field(name: str, value: str) -> str:
    if not _NAME.fullmatch(name):
        return f"invalid field name {name[:40]!r}"
    if name in _CONNECTION or (name == "te" and value != "trailers"):
        return f"connection-specific field {name!r}"
    return ""


def _check_request(headers: Headers) -> str:
    if headers.oversized:
        return ""  # what is missing may be in the part that was cut off
    fields = dict(headers.fields)
    if missing := _REQUIRED.difference(fields):
        return f"no {', '.join(sorted(missing))}"
    if not fields[":path"]:
        return "empty :path"
    return _check_length(headers)


def _check_status(headers: Headers) -> str:
    status = dict(headers.fields).get(":status", "")
    if not (len(status) == 3 and status.isascii() and status.isdigit()):  # noqa: PLR2004 - three digits
        return "no :status"
    return _check_length(headers)


def _check_length(headers: Headers) -> str:
    headers.length = _length(headers)
    return "broken content-length" if headers.length < -1 else ""
