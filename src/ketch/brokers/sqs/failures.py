"""Failures: what the driver raises, judged: gone, denied, passing; and what we raise for it."""

from __future__ import annotations

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    NoCredentialsError,
    NoRegionError,
    SSLError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError

from ...errors import BrokerError

#: What a call may raise.
FAILURES = (ClientError, BotoCoreError, OSError)

#: Characters of what AWS says that an error of ours holds.
_REASON = 300

_GONE = frozenset({"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist", "NotFound", "NotFoundException"})
_DENIED = frozenset({"AccessDenied", "AccessDeniedException", "AuthorizationError", "AuthorizationErrorException"})
_STRANGERS = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSecurity",
        "MissingAuthenticationToken",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
#: Statuses of HTTP that pass: 429, and the server's own fault (RFC 6585 section 4, RFC 9110 section 15.6).
_PASSING = frozenset({429, *range(500, 600)})

#: Statuses of HTTP that refuse whoever asks, should a code say nothing of it.
_REFUSED = frozenset({401, 403})

_BUSY = frozenset(
    {
        "AWS.SimpleQueueService.QueueDeletedRecently",  # for a minute
        "KMSThrottling",
        "KmsThrottled",
        "OverLimit",
        "QueueDeletedRecently",
        "RequestThrottled",
        "SlowDown",
        "Throttled",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)


def code_of(error: BaseException | None) -> str:
    """Return AWS's code for an error, or for the one it was mapped from; "" where it has none."""
    if isinstance(error, BrokerError):
        error = error.__cause__
    if not isinstance(error, ClientError):
        return ""
    return str(error.response.get("Error", {}).get("Code", ""))


def is_gone(error: BaseException) -> bool:
    """Tell whether a call failed because its topic or queue isn't there any more."""
    return code_of(error) in _GONE


def is_denied(error: BaseException) -> bool:
    """Tell whether a call failed because our credentials don't allow it."""
    return code_of(error) in _DENIED


def is_passing(error: BaseException) -> bool:
    """Tell whether the same call may succeed a little later."""
    if isinstance(error, ClientError):
        return code_of(error) in _BUSY or _status(error) in _PASSING
    if isinstance(error, SSLError):
        return False  # a certificate doesn't become right by itself
    return isinstance(error, HTTPClientError | BotoConnectionError | CredentialRetrievalError | OSError)


def refusal(error: BaseException, location: str, service: str, operation: str) -> BrokerError:
    """Return what we raise for a driver's error that won't pass: it says what to do."""
    code = code_of(error)
    if isinstance(error, NoRegionError):
        return BrokerError("sqs: which region? Set ?region=eu-central-1 or AWS_DEFAULT_REGION")
    if isinstance(error, NoCredentialsError):
        return BrokerError("sqs: no credentials, neither in the URL nor in AWS's environment variables, files or roles")
    if code not in _DENIED and (code in _STRANGERS or _status(error) in _REFUSED):
        return BrokerError(f"{location}: our credentials are refused ({code})")
    if code in _DENIED:
        action = "".join(word.capitalize() for word in operation.removesuffix("_batch").split("_"))
        return BrokerError(f"{location}: not allowed; our IAM policy needs {service}:{action}")
    return BrokerError(f"{location}: {operation}: {reason(error)}")


def _status(error: BaseException) -> int:
    return (
        int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        if isinstance(error, ClientError)
        else 0
    )


def reason(error: BaseException) -> str:
    """Return why, in short."""
    if isinstance(error, ClientError):
        details = error.response.get("Error", {})
        return f"{details.get('Code', 'error')}: {str(details.get('Message', ''))[:_REASON]}"
    return str(error)[:_REASON] or type(error).__name__
