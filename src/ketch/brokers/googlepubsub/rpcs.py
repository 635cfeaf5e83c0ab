"""Pub/Sub's methods on gRPC's asyncio client (google/pubsub/v1/pubsub.proto), with errors as ours.

The plain protobuf classes are used: the package's wrappers around them cost several times as much per message.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import google.auth
import google.auth.exceptions
import google.auth.transport.grpc
import google.auth.transport.requests
import grpc
import grpc.aio
from google.oauth2 import service_account
from google.protobuf.empty_pb2 import Empty
from google.pubsub_v1 import types

from ...errors import BrokerError, BrokerUnavailable, ConfigurationError

if TYPE_CHECKING:
    from .config import Config

log = logging.getLogger("ketch.broker")

Code = grpc.StatusCode

#: What may pass by itself; asking again is right (aip.dev/194, and Pub/Sub's own client for publishing).
PASSING = frozenset({Code.UNAVAILABLE, Code.ABORTED, Code.INTERNAL, Code.RESOURCE_EXHAUSTED, Code.UNKNOWN})

#: Seconds before the first further try, doubled for each up to the longest.
FIRST_WAIT = 0.1
LONGEST_WAIT = 10.0

_PUBLISHER = "/google.pubsub.v1.Publisher/"
_SUBSCRIBER = "/google.pubsub.v1.Subscriber/"
_SCOPES = ("https://www.googleapis.com/auth/pubsub",)

#: Largest message taken; one answer holds several of up to 10 MB.
_MAX_ANSWER = 64 * 1024 * 1024

#: Streaming pulls on one connection: Google's front ends allow it a hundred streams.
_STREAMS = 80

#: Milliseconds without a sign of life until one is asked for; servers but Google's drop who asks more often than this.
_PINGS = 30_000
_PINGS_ELSEWHERE = 300_000

_CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", _MAX_ANSWER),
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    # Or channels to the same place would share one connection after all.
    ("grpc.use_local_subchannel_pool", 1),
)


class Rpcs:
    """The service's methods, on one connection for requests and further ones for streaming pulls."""

    def __init__(self, config: Config, credentials: grpc.ChannelCredentials | None) -> None:
        self._config = config
        self._credentials = credentials
        self._channel = self._connect()
        self._pulling: list[tuple[grpc.aio.Channel, set[object]]] = []
        method = self._method
        self.get_topic = method(_PUBLISHER + "GetTopic", types.GetTopicRequest, types.Topic)
        self.create_topic = method(_PUBLISHER + "CreateTopic", types.Topic, types.Topic)
        self.publish = method(_PUBLISHER + "Publish", types.PublishRequest, types.PublishResponse)
        self.create_subscription = method(_SUBSCRIBER + "CreateSubscription", types.Subscription, types.Subscription)
        self.get_subscription = method(
            _SUBSCRIBER + "GetSubscription", types.GetSubscriptionRequest, types.Subscription
        )
        self.delete_subscription = method(_SUBSCRIBER + "DeleteSubscription", types.DeleteSubscriptionRequest, Empty)
        self.acknowledge = method(_SUBSCRIBER + "Acknowledge", types.AcknowledgeRequest, Empty)
        self.modify_deadline = method(_SUBSCRIBER + "ModifyAckDeadline", types.ModifyAckDeadlineRequest, Empty)

    def _connect(self) -> grpc.aio.Channel:
        pings = _PINGS if self._config.google else _PINGS_ELSEWHERE
        options = (*_CHANNEL_OPTIONS, ("grpc.keepalive_time_ms", pings))
        if self._credentials is None:
            return grpc.aio.insecure_channel(self._config.address, options=options)
        return grpc.aio.secure_channel(self._config.address, self._credentials, options=options)

    def _method(self, path: str, request: Any, reply: Any) -> Any:
        request, reply = _plain(request), _plain(reply)
        return self._channel.unary_unary(path, request.SerializeToString, reply.FromString)

    @property
    def lost(self) -> bool:
        """Whether the connection for requests can't be made just now."""
        return self._channel.get_state() is grpc.ChannelConnectivity.TRANSIENT_FAILURE

    def streaming_pull(self, subscription: str, user: object) -> Any:
        """Begin a streaming pull on behalf of a user, who has one at a time and lets go of it in `leave`."""
        channel = next((c for c, users in self._pulling if user in users), None)
        if channel is None:
            channel, users = next((p for p in self._pulling if len(p[1]) < _STREAMS), (None, set()))
            if channel is None:
                channel, users = self._connect(), set[object]()
                self._pulling.append((channel, users))
            users.add(user)
        begin: Any = channel.stream_stream(
            _SUBSCRIBER + "StreamingPull",
            _plain(types.StreamingPullRequest).SerializeToString,
            _plain(types.StreamingPullResponse).FromString,
        )
        return begin(metadata=routing("subscription", subscription), wait_for_ready=True)

    def leave(self, user: object) -> None:
        """Give back a user's place."""
        for _, users in self._pulling:
            users.discard(user)

    async def call(self, method: Any, request: Any, key: str, name: str, timeout: float) -> Any:
        """Make a call, and again while it fails for what may pass.

        Args:
            method: one of the above.
            request: its message.
            key: the request's field that Google's front ends route by.
            name: the resource that it holds.
            timeout: seconds, for all tries together.

        Raises:
            grpc.aio.AioRpcError: how the last try failed.
        """
        ends = asyncio.get_running_loop().time() + timeout
        wait = FIRST_WAIT
        while True:
            left = ends - asyncio.get_running_loop().time()
            try:
                return await method(request, timeout=left, wait_for_ready=True, metadata=routing(key, name))
            except grpc.aio.AioRpcError as error:
                if error.code() not in PASSING or left <= wait:
                    raise
            await asyncio.sleep(wait)
            wait = min(wait * 2, LONGEST_WAIT)

    async def close(self) -> None:
        """Close all connections, with what is still on its way."""
        for channel in (self._channel, *(channel for channel, _ in self._pulling)):
            await channel.close()


def _plain(kind: Any) -> Any:
    return kind.pb() if hasattr(kind, "pb") else kind


def routing(key: str, name: str) -> tuple[tuple[str, str], ...]:
    """Return the metadata that Google's front ends route by (google.aip.dev/client-libraries/4222)."""
    return (("x-goog-request-params", f"{key}={quote(name, safe='')}"),)


def explain(error: grpc.aio.AioRpcError, where: str, what: str, kind: type[BrokerError] = BrokerError) -> BrokerError:
    """Return a call's failure as ours; one that may pass, or took too long, is `BrokerUnavailable`."""
    why = f"{where}: {what}: {error.details() or error.code().name}"
    if error.code() in (*PASSING, Code.DEADLINE_EXCEEDED, Code.CANCELLED):
        return BrokerUnavailable(why)
    if error.code() in (Code.PERMISSION_DENIED, Code.UNAUTHENTICATED):
        why += "; do the credentials have Pub/Sub's roles in this project?"
    return kind(why)


async def credentials(config: Config) -> grpc.ChannelCredentials | None:
    """Return how to prove who we are; None for a server of one's own without TLS.

    Raises:
        ConfigurationError: there are none, or their files can't be used.
    """
    return await asyncio.to_thread(_credentials, config)  # files are read, and Google's metadata server may be asked


def _credentials(config: Config) -> grpc.ChannelCredentials | None:
    try:
        ssl = grpc.ssl_channel_credentials(_read(config.tls_ca), _read(config.tls_key), _read(config.tls_cert))
        if not (config.google or config.credentials):
            return ssl if config.tls else None
        if config.credentials:
            found: Any = service_account.Credentials.from_service_account_file(  # type: ignore[no-untyped-call]
                config.credentials, scopes=_SCOPES
            )
        else:
            found, _ = google.auth.default(scopes=_SCOPES)
    except (OSError, ValueError, google.auth.exceptions.GoogleAuthError) as error:
        # Not the error's text of a key file: it may quote it.
        why = "the TLS files" if isinstance(error, OSError) else "Google's credentials"
        name = f" ({error.filename})" if isinstance(error, OSError) else ""
        raise ConfigurationError(
            f"{config.location}: {why} can't be used{name}: {type(error).__name__}; "
            "run `gcloud auth application-default login` or name a key file, ?credentials=…"
        ) from None
    plugin = google.auth.transport.grpc.AuthMetadataPlugin(  # type: ignore[no-untyped-call]
        found, google.auth.transport.requests.Request()
    )
    return grpc.composite_channel_credentials(ssl, grpc.metadata_call_credentials(plugin))


def _read(name: str) -> bytes | None:
    return Path(name).read_bytes() if name else None


async def ended(task: asyncio.Task[None]) -> None:
    """Cancel a task of ours and wait for its end."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
