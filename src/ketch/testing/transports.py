# ruff: noqa: D102, ARG002 - a test's name is its sentence; a handler's signature is the contract's
"""What every transport must do, as tests.

A plugin's author subclasses `TransportSuite` in a test module:

    class TestMyTransport(TransportSuite):
        @pytest.fixture
        def make(self) -> Callable[[], Transport]:
            return lambda: MyTransport.from_url(Url.parse("my"))

It needs pytest and pytest-asyncio: `pip install 'ketch[testing]'`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
import pytest_asyncio

from ..codec import JSON, PROTOBUF
from ..context import ReplyMetadata
from ..errors import (
    AddressUnavailable,
    Cancelled,
    Code,
    ConfigurationError,
    DeadlineExceeded,
    Internal,
    NotFound,
    ResourceExhausted,
    StatusError,
    Unavailable,
    Unimplemented,
    Unknown,
    status_error,
)
from ..tls import ClientTls, ServerTls, Tls
from ..transport import MAX_MESSAGE_SIZE, Channel, Listener, Request, Route, Stream, Transport
from ..url import Url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

#: Serialized `google.protobuf.Any` with type_url "type.example/Detail" and value "why".
DETAIL = b"\x0a\x13type.example/Detail\x12\x03why"


class Served:
    """What the suite's listener serves, and what its handlers saw."""

    def __init__(self) -> None:
        self.seen: list[Request] = []
        self.started = asyncio.Event()
        self.release = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.sent = 0
        self.failure: StatusError | None = None
        self.routes = {
            "/suite/Echo": Route(unary=self.echo),
            "/suite/Fail": Route(unary=self.fail),
            "/suite/Crash": Route(unary=self.crash),
            "/suite/Wait": Route(unary=self.wait),
            "/suite/Large": Route(unary=self.large),
            "/suite/Metadata": Route(unary=self.metadata),
            "/suite/Trailers": Route(stream=self.trailers),
            "/suite/Early": Route(stream=self.early),
            "/suite/Chat": Route(stream=self.chat),
            "/suite/Count": Route(stream=self.count),
            "/suite/Sum": Route(stream=self.sum),
            "/suite/Flood": Route(stream=self.flood),
            "/suite/Half": Route(stream=self.half),
            "/suite/Refuse": Route(stream=self.refuse),
            "/suite/Hang": Route(stream=self.hang),
            "/suite/Deaf": Route(stream=self.deaf),
        }

    async def echo(self, request: Request) -> bytes:
        self.seen.append(request)
        return request.body

    async def fail(self, request: Request) -> bytes:
        raise self.failure or NotFound(request.body.decode())

    async def crash(self, request: Request) -> bytes:
        raise RuntimeError("the password is hunter2")

    async def wait(self, request: Request) -> bytes:
        self.started.set()
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return b"released"

    async def large(self, request: Request) -> bytes:
        return bytes(int(request.body))

    async def metadata(self, request: Request) -> bytes:
        request.reply_metadata.update({"x-first": "1", "x-first-bin": b"\x00\x01\x02"})
        request.trailers["x-last"] = "2"
        if request.body:
            raise NotFound("all the same", metadata={"x-why": "3"})
        return b"reply"

    async def early(self, request: Request, stream: Stream) -> None:
        request.reply_metadata["x-first"] = "1"
        await stream.begin()
        with pytest.raises(RuntimeError, match="has been sent"):
            request.reply_metadata["x-first"] = "2"
        self.started.set()
        await self.release.wait()
        request.compress = True
        await stream.send(b"x" * 10_000)

    async def trailers(self, request: Request, stream: Stream) -> None:
        request.trailers.update({"x-cost": "7", "x-raw-bin": "AAEC"})
        await stream.send(b"one")

    async def chat(self, request: Request, stream: Stream) -> None:
        while (body := await stream.receive()) is not None:
            await stream.send(body.upper())

    async def count(self, request: Request, stream: Stream) -> None:
        many = await stream.receive()
        for number in range(int(many or b"0")):
            await stream.send(str(number).encode())

    async def sum(self, request: Request, stream: Stream) -> None:
        total = 0
        while (body := await stream.receive()) is not None:
            total += int(body)
        await stream.send(str(total).encode())

    async def flood(self, request: Request, stream: Stream) -> None:
        while True:
            await stream.send(bytes(10_000))
            self.sent += 1
            self.started.set()

    async def half(self, request: Request, stream: Stream) -> None:
        await stream.send(b"half")
        raise NotFound("the other half")

    async def refuse(self, request: Request, stream: Stream) -> None:
        raise NotFound("at once")

    async def hang(self, request: Request, stream: Stream) -> None:
        self.started.set()
        try:
            while await stream.receive() is not None:
                pass
            await self.release.wait()
        except StatusError:
            self.cancelled.set()
            raise
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def deaf(self, request: Request, stream: Stream) -> None:
        self.started.set()
        await self.release.wait()
        while await stream.receive() is not None:
            pass
        await stream.send(b"heard")


class TransportSuite:
    """The promises of `ketch.transport`.

    Attributes:
        patience: seconds after which what was promised counts as broken.
        buffered: bytes that a transport may take from a sender whose peer doesn't read, at most.
    """

    pytestmark = pytest.mark.asyncio

    patience: ClassVar[float] = 10.0
    buffered: ClassVar[int] = 16 * 1024 * 1024

    @pytest.fixture
    def make(self) -> Callable[[], Transport]:
        """Return a function that makes transports, not open, which reach each other."""
        raise NotImplementedError("override the fixture `make`: it returns a function that makes a transport")

    @pytest.fixture
    def place(self) -> str:
        """Return an address to listen on, free each time; port 0 will do."""
        return "127.0.0.1:0"

    @pytest.fixture
    def served(self) -> Served:
        """Return what is served."""
        return Served()

    @pytest_asyncio.fixture
    async def listener(self, make: Callable[[], Transport], place: str, served: Served) -> AsyncIterator[Listener]:
        """Listen with one transport object."""
        async with make() as transport:
            listener = await transport.listen(place, served.routes)
            yield listener
            served.release.set()
            await listener.stop(0)

    @pytest_asyncio.fixture
    async def channel(self, make: Callable[[], Transport], listener: Listener) -> AsyncIterator[Channel]:
        """Call with another."""
        async with make() as transport, asyncio.timeout(2 * self.patience):
            channel = transport.connect(listener.address)
            yield channel
            await channel.close()

    async def call(self, channel: Channel, name: str, body: bytes = b"", **options: Any) -> bytes:
        """Make a unary call to one of the suite's methods."""
        return await channel.unary(f"/suite/{name}", body, content_type=PROTOBUF, **options)

    async def open(self, channel: Channel, name: str, **options: Any) -> Stream:
        """Start a call to one of the suite's streaming methods."""
        return await channel.stream(f"/suite/{name}", content_type=PROTOBUF, **options)

    # unary calls

    async def test_a_unary_call_brings_the_reply(self, channel: Channel) -> None:
        assert await self.call(channel, "Echo", b"\x00\xffhello") == b"\x00\xffhello"

    async def test_an_empty_request_and_an_empty_reply_are_messages(self, channel: Channel) -> None:
        assert await self.call(channel, "Echo", b"") == b""

    async def test_calls_on_one_channel_dont_wait_for_each_other(self, channel: Channel, served: Served) -> None:
        waiting = asyncio.create_task(self.call(channel, "Wait"))
        await served.started.wait()
        assert await self.call(channel, "Echo", b"meanwhile") == b"meanwhile"
        served.release.set()
        assert await waiting == b"released"

    async def test_many_calls_at_a_time_each_get_their_own_reply(self, channel: Channel) -> None:
        bodies = [str(number).encode() for number in range(1500)]
        assert await asyncio.gather(*(self.call(channel, "Echo", body) for body in bodies)) == bodies

    async def test_a_message_of_the_largest_size_passes_both_ways(self, channel: Channel) -> None:
        body = bytes(range(256)) * (MAX_MESSAGE_SIZE // 256)
        assert await self.call(channel, "Echo", body) == body

    async def test_a_request_that_is_too_large_is_refused(self, channel: Channel, served: Served) -> None:
        with pytest.raises(ResourceExhausted):
            await self.call(channel, "Echo", bytes(MAX_MESSAGE_SIZE + 1))
        assert served.seen == []
        assert await self.call(channel, "Echo", b"still there") == b"still there"

    async def test_a_reply_that_is_too_large_is_refused(self, channel: Channel) -> None:
        with pytest.raises(ResourceExhausted):
            await self.call(channel, "Large", str(MAX_MESSAGE_SIZE + 1).encode())
        assert await self.call(channel, "Echo", b"still there") == b"still there"

    async def test_the_handler_sees_method_content_type_metadata_and_peer(
        self, channel: Channel, served: Served
    ) -> None:
        metadata = {"x-request-id": "42", "authorization": "Bearer t", "x-raw-bin": "AAEC/w"}
        await channel.unary("/suite/Echo", b"{}", content_type=JSON, metadata=metadata)
        (request,) = served.seen
        assert request.method == "/suite/Echo"
        assert request.content_type == JSON
        assert dict(request.metadata) == metadata
        assert request.body == b"{}"
        assert request.peer
        assert request.deadline is None

    async def test_the_callers_timeout_is_the_handlers_deadline(self, channel: Channel, served: Served) -> None:
        before = time.monotonic()
        await self.call(channel, "Echo", timeout=30)
        deadline = served.seen[0].deadline
        assert deadline is not None
        assert before < deadline <= time.monotonic() + 30.5

    async def test_metadata_that_cant_be_sent_is_refused_without_harm(self, channel: Channel) -> None:
        for metadata in ({"Upper": "case"}, {"x": "new\nline"}, {"x": "ünicode"}, {"": "nameless"}):
            with pytest.raises(Internal):
                await self.call(channel, "Echo", metadata=metadata)
        assert await self.call(channel, "Echo", b"still there") == b"still there"

    # statuses

    async def test_a_status_crosses_as_itself(self, channel: Channel, served: Served) -> None:
        served.failure = NotFound(
            "no user 7 — 100% gone\n", details=[DETAIL], metadata={"x-hint": "try 8", "x-raw-bin": b"\x00\x01\xff"}
        )
        with pytest.raises(NotFound) as caught:
            await self.call(channel, "Fail")
        assert caught.value.message == "no user 7 — 100% gone\n"
        assert caught.value.details == (DETAIL,)
        assert dict(caught.value.metadata) == {"x-hint": "try 8", "x-raw-bin": "AAH/"}

    @pytest.mark.parametrize("code", [code for code in Code if code])
    async def test_every_code_crosses(self, channel: Channel, served: Served, code: Code) -> None:
        served.failure = status_error(code, "why")
        with pytest.raises(StatusError) as caught:
            await self.call(channel, "Fail")
        assert type(caught.value) is type(served.failure)

    async def test_a_handlers_bug_is_unknown_logged_and_kept_from_the_caller(
        self, channel: Channel, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.ERROR), pytest.raises(Unknown) as caught:
            await self.call(channel, "Crash")
        assert "hunter2" not in caught.value.message
        assert "hunter2" in caplog.text

    async def test_a_method_that_nobody_serves_is_unimplemented(self, channel: Channel) -> None:
        with pytest.raises(Unimplemented):
            await self.call(channel, "Nothing")
        stream = await self.open(channel, "Nothing")
        with pytest.raises(Unimplemented):
            await stream.receive()

    async def test_a_route_added_later_is_served(self, channel: Channel, served: Served) -> None:
        served.routes["/suite/Late"] = Route(unary=served.echo)
        assert await self.call(channel, "Late", b"!") == b"!"

    # streams

    async def test_both_sides_stream_in_turns(self, channel: Channel) -> None:
        stream = await self.open(channel, "Chat")
        for word in (b"a", b"b", b""):
            await stream.send(word)
            assert await stream.receive() == word.upper()
        await stream.end()
        assert await stream.receive() is None
        assert await stream.receive() is None

    async def test_replies_stream_in_order(self, channel: Channel) -> None:
        stream = await self.open(channel, "Count")
        await stream.send(b"2000")
        await stream.end()
        assert [await stream.receive() for _ in range(2001)] == [*(str(n).encode() for n in range(2000)), None]

    async def test_requests_stream_in_order(self, channel: Channel) -> None:
        stream = await self.open(channel, "Sum")
        for number in range(2000):
            await stream.send(str(number).encode())
        await stream.end()
        assert await stream.receive() == b"1999000"
        assert await stream.receive() is None

    async def test_large_messages_stream(self, channel: Channel) -> None:
        stream = await self.open(channel, "Chat")
        body = b"x" * MAX_MESSAGE_SIZE
        for _ in range(3):
            await stream.send(body)
            assert await stream.receive() == body.upper()
        stream.cancel()

    async def test_trailers_arrive_with_the_end(self, channel: Channel) -> None:
        stream = await self.open(channel, "Trailers")
        assert await stream.receive() == b"one"
        assert await stream.receive() is None
        assert dict(stream.trailers) == {"x-cost": "7", "x-raw-bin": "AAEC"}

    async def test_metadata_comes_ahead_of_a_reply_and_after_it(self, channel: Channel) -> None:
        received = ReplyMetadata()
        assert await self.call(channel, "Metadata", received=received) == b"reply"
        assert dict(received.metadata) == {"x-first": "1", "x-first-bin": "AAEC"}
        assert dict(received.trailers) == {"x-last": "2"}

    async def test_metadata_comes_along_with_an_error(self, channel: Channel) -> None:
        received = ReplyMetadata()
        with pytest.raises(NotFound):
            await self.call(channel, "Metadata", b"fail", received=received)
        assert dict(received.metadata) == {"x-first": "1", "x-first-bin": "AAEC"}
        assert dict(received.trailers) == {"x-last": "2", "x-why": "3"}

    async def test_a_streams_metadata_can_be_sent_before_its_first_reply(
        self, channel: Channel, served: Served
    ) -> None:
        stream = await self.open(channel, "Early")
        await stream.end()
        await served.started.wait()
        served.release.set()
        assert await stream.receive() == b"x" * 10_000
        assert dict(stream.metadata) == {"x-first": "1"}
        assert await stream.receive() is None

    async def test_a_request_that_should_be_compressed_arrives_whole(self, channel: Channel) -> None:
        body = b"again and " * 10_000
        assert await self.call(channel, "Echo", body, compress=True) == body
        stream = await self.open(channel, "Chat", compress=True)
        await stream.send(body)
        assert await stream.receive() == body.upper()
        stream.cancel()

    async def test_a_status_after_some_replies_comes_after_them(self, channel: Channel) -> None:
        stream = await self.open(channel, "Half")
        assert await stream.receive() == b"half"
        with pytest.raises(NotFound, match="the other half"):
            await stream.receive()

    async def test_a_stream_that_the_handler_refuses_ends_with_its_status(self, channel: Channel) -> None:
        stream = await self.open(channel, "Refuse")
        with pytest.raises(NotFound, match="at once"):
            await stream.receive()

    async def test_sending_on_a_call_that_has_ended_fails(self, channel: Channel) -> None:
        stream = await self.open(channel, "Refuse")
        with pytest.raises(NotFound):
            await stream.receive()
        with pytest.raises(StatusError):
            await stream.send(b"too late")

    async def test_a_message_that_is_too_large_is_not_sent_on_a_stream(self, channel: Channel) -> None:
        stream = await self.open(channel, "Chat")
        with pytest.raises(ResourceExhausted):
            await stream.send(bytes(MAX_MESSAGE_SIZE + 1))
        stream.cancel()

    async def test_a_server_whose_caller_doesnt_read_has_to_wait(self, channel: Channel, served: Served) -> None:
        stream = await self.open(channel, "Flood")
        await served.started.wait()
        before = -1
        while before != served.sent:
            before = served.sent
            for _ in range(50):  # calls that go back and forth: whatever could be sent was sent
                await self.call(channel, "Echo")
        assert served.sent * 10_000 < self.buffered
        for _ in range(before + 1):  # and goes on when it is read
            assert await stream.receive() == bytes(10_000)
        stream.cancel()

    async def test_a_caller_whose_server_doesnt_read_has_to_wait(self, channel: Channel, served: Served) -> None:
        stream = await self.open(channel, "Deaf")
        sent = 0

        async def send() -> None:
            nonlocal sent
            for _ in range(2 * self.buffered // 10_000):
                await stream.send(bytes(10_000))
                sent += 1
            await stream.end()

        sending = asyncio.create_task(send())
        await served.started.wait()
        before = -1
        while before != sent:
            before = sent
            for _ in range(50):
                await self.call(channel, "Echo")
        assert sent * 10_000 < self.buffered
        served.release.set()
        assert await stream.receive() == b"heard"
        await sending

    async def test_a_stream_that_nobody_reads_doesnt_stop_the_others(self, channel: Channel, served: Served) -> None:
        unread = [await self.open(channel, "Flood") for _ in range(20)]
        await served.started.wait()
        body = bytes(1_000_000)
        for _ in range(5):
            assert await self.call(channel, "Echo", body) == body
        for stream in unread:
            stream.cancel()

    # deadlines and cancellation

    async def test_a_deadline_ends_the_call_for_both(self, channel: Channel, served: Served) -> None:
        with pytest.raises(DeadlineExceeded):
            await self.call(channel, "Wait", timeout=0.1)
        await asyncio.wait_for(served.cancelled.wait(), self.patience)

    async def test_a_deadline_ends_a_stream_for_both(self, channel: Channel, served: Served) -> None:
        stream = await self.open(channel, "Hang", timeout=0.1)
        with pytest.raises(DeadlineExceeded):
            await stream.receive()
        await asyncio.wait_for(served.cancelled.wait(), self.patience)

    async def test_a_deadline_that_has_passed_ends_the_call(self, channel: Channel) -> None:
        with pytest.raises(DeadlineExceeded):
            await self.call(channel, "Wait", timeout=0)

    async def test_cancelling_the_caller_cancels_the_handler(self, channel: Channel, served: Served) -> None:
        calling = asyncio.create_task(self.call(channel, "Wait"))
        await served.started.wait()
        calling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await calling
        await asyncio.wait_for(served.cancelled.wait(), self.patience)

    async def test_cancelling_a_stream_cancels_the_handler(self, channel: Channel, served: Served) -> None:
        stream = await self.open(channel, "Hang")
        await stream.send(b"a")
        await served.started.wait()
        stream.cancel()
        stream.cancel()
        with pytest.raises(Cancelled):
            await stream.receive()
        with pytest.raises(Cancelled):
            await stream.send(b"b")
        await asyncio.wait_for(served.cancelled.wait(), self.patience)

    async def test_closing_the_channel_ends_the_calls_in_hand(
        self, make: Callable[[], Transport], listener: Listener, served: Served
    ) -> None:
        async with make() as transport:
            channel = transport.connect(listener.address)
            calling = asyncio.create_task(self.call(channel, "Wait"))
            await served.started.wait()
            await channel.close()
            await channel.close()
            with pytest.raises(Cancelled):
                await calling
            await asyncio.wait_for(served.cancelled.wait(), self.patience)
            with pytest.raises(Cancelled):
                await self.call(channel, "Echo")

    # listening and stopping

    async def test_a_call_to_nobody_is_unavailable(
        self, make: Callable[[], Transport], place: str, served: Served
    ) -> None:
        async with make() as transport:
            listener = await transport.listen(place, served.routes)
            await listener.stop(1)
            channel = transport.connect(listener.address)
            with pytest.raises(Unavailable):
                await self.call(channel, "Echo", timeout=self.patience)
            await channel.close()

    async def test_an_address_that_is_taken_cant_be_listened_on(
        self, make: Callable[[], Transport], listener: Listener
    ) -> None:
        async with make() as transport:
            with pytest.raises(AddressUnavailable):
                await transport.listen(listener.address, {})

    async def test_a_channel_finds_a_listener_that_came_back(
        self, make: Callable[[], Transport], place: str, served: Served
    ) -> None:
        async with make() as transport:
            listener = await transport.listen(place, served.routes)
            channel = transport.connect(listener.address)
            assert await self.call(channel, "Echo", b"1") == b"1"
            await listener.stop(self.patience)
            with pytest.raises(Unavailable):
                await self.call(channel, "Echo", b"2")
            again = await transport.listen(listener.address, served.routes)
            assert await self.call(channel, "Echo", b"3") == b"3"
            await channel.close()
            await again.stop(0)

    async def test_stopping_waits_for_calls_in_hand(self, channel: Channel, listener: Listener, served: Served) -> None:
        calling = asyncio.create_task(self.call(channel, "Wait"))
        await served.started.wait()
        stopping = asyncio.create_task(listener.stop(self.patience))
        await asyncio.sleep(0)
        served.release.set()
        assert await calling == b"released"
        await stopping
        with pytest.raises(Unavailable):
            await self.call(channel, "Echo")

    async def test_what_is_left_after_the_grace_period_is_unavailable(
        self, channel: Channel, listener: Listener, served: Served
    ) -> None:
        calling = asyncio.create_task(self.call(channel, "Wait"))
        stream = await self.open(channel, "Hang")
        await served.started.wait()
        await listener.stop(0.01)
        await listener.stop(0.01)
        with pytest.raises(Unavailable):
            await calling
        with pytest.raises(Unavailable):
            await stream.receive()
        assert served.cancelled.is_set()

    async def test_stopping_while_calls_pour_in_loses_none(
        self, make: Callable[[], Transport], place: str, served: Served
    ) -> None:
        """Every call is answered, or fails as `Unavailable` without its handler having seen it."""
        async with AsyncExitStack() as stack:
            transport = await stack.enter_async_context(make())
            listener = await transport.listen(place, served.routes)
            channel = transport.connect(listener.address)
            stack.push_async_callback(channel.close)
            answered: set[bytes] = set()
            refused: set[bytes] = set()
            many = asyncio.Event()

            async def pour(worker: int) -> None:
                for number in range(1000):
                    body = f"{worker}-{number}".encode()
                    try:
                        answered.add(await self.call(channel, "Echo", body))
                    except Unavailable:
                        refused.add(body)
                        return
                    if len(answered) > 200:
                        many.set()

            pouring = [asyncio.create_task(pour(worker)) for worker in range(20)]
            await many.wait()
            await listener.stop(self.patience)
            await asyncio.gather(*pouring)
            seen = {request.body for request in served.seen}
            assert refused
            assert seen == answered

    async def test_tls_is_done_or_refused(self, make: Callable[[], Transport]) -> None:
        """Nothing degrades in silence: who asks for TLS gets it, or an error at start."""
        transport = make()
        wanted = transport.tls or Tls(ServerTls("cert.pem", "key.pem"), ClientTls("root.pem"))
        try:
            transport.secure(wanted)
        except ConfigurationError:
            assert not transport.tls
            return
        assert transport.tls == wanted
        if wanted.server is not None and wanted.server.cert == "cert.pem":
            with pytest.raises(ConfigurationError):
                await transport.open()  # nothing of the kind is here

    async def test_an_unknown_option_is_refused(self, make: Callable[[], Transport]) -> None:
        kind = type(make())
        with pytest.raises(ConfigurationError):
            kind.from_url(Url.parse(f"{kind.name}://?no-such-option=1"))
