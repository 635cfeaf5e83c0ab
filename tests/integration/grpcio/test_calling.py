"""Stubs that grpcio's tools generated, over a ketch channel."""

# ruff: noqa: N802 - methods are called as their rpcs are

import asyncio
import gc
from uuid import uuid4

import grpc.aio
import pytest

from ketch import Call, Client, Kind, Service, errors, grpcio
from ketch.errors import ConfigurationError, NotRunning


class Servicer:
    """What the tests call; on grpc.aio's server."""

    def __init__(self):
        self.started = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.metadata = ()

    async def Say(self, request, context):
        self.metadata = tuple(context.invocation_metadata())
        self.started.set()
        if request.text == "hang":
            await self.hang()
        return self.text(text=f"{request.text} {self.name}")

    async def Count(self, request, context):
        await context.send_initial_metadata((("x-initial", "1"),))
        self.started.set()
        if request.text == "hang":
            await self.hang()
        for number in range(int(request.text)):
            yield self.text(text=str(number))

    async def Join(self, request_iterator, context):
        parts = []
        async for request in request_iterator:
            self.started.set()
            parts.append(request.text)
        return self.text(text="+".join(parts))

    async def Chat(self, request_iterator, context):
        await context.send_initial_metadata((("x-initial", "1"),))
        async for request in request_iterator:
            if request.text == "abort":
                await context.abort(grpc.StatusCode.ABORTED, "told to", (("x-hint", "h"),))
            yield request

    async def hang(self):
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()


@pytest.fixture
def make(generated):
    def make(name="one"):
        members = {"text": generated.pb2.Text, "name": name}
        return type("Echo", (Servicer, generated.grpc.EchoServicer), members)()

    return make


@pytest.fixture
async def servicer(make):
    return make()


@pytest.fixture
async def address(servicer, sides, generated):
    serve = sides[0]["stock"]
    async with serve(lambda server: generated.grpc.add_EchoServicer_to_server(servicer, server)) as address:
        yield address


@pytest.fixture
async def channel(address):
    async with grpcio.channel(address) as channel:
        yield channel


@pytest.fixture
def stub(channel, generated):
    return generated.grpc.EchoStub(channel)


@pytest.fixture
def text(generated):
    return generated.pb2.Text


def texts(text, *said):
    return [text(text=one) for one in said]


# A call


async def test_a_call_goes_on_whether_or_not_it_is_awaited_and_its_reply_may_be_asked_for_twice(stub, text, servicer):
    call = stub.Say(text(text="a"))
    await servicer.started.wait()
    ended = asyncio.Event()
    call.add_done_callback(lambda told: ended.set() if told is call else None)
    await ended.wait()
    assert call.done()
    assert (await call).text == (await call).text == "a one"
    late = asyncio.Event()
    call.add_done_callback(lambda _: late.set())
    await late.wait()


async def test_a_cancelled_call_raises_cancelled_error_and_its_handler_is_cancelled(stub, text, servicer):
    call = stub.Say(text(text="hang"))
    await servicer.started.wait()
    assert call.cancel()
    assert not call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert (call.done(), call.cancelled()) == (True, True)
    assert (await call.code(), await call.details()) == (
        grpc.StatusCode.CANCELLED,
        "Locally cancelled by application!",
    )
    await servicer.cancelled.wait()


async def test_a_call_that_is_cancelled_at_once_never_begins(stub, text, servicer):
    call = stub.Say(text(text="a"))
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert not servicer.started.is_set()


async def test_cancelling_who_awaits_cancels_the_call(stub, text, servicer):
    waiting = asyncio.ensure_future(_await(stub.Say(text(text="hang"))))
    await servicer.started.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await servicer.cancelled.wait()


async def _await(call):
    return await call


async def test_cancelling_who_waits_for_the_code_leaves_the_call(stub, text, servicer):
    call = stub.Say(text(text="hang"))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(call.code(), 0.05)
    assert not call.done()
    call.cancel()


async def test_a_deadline_is_kept_and_told(stub, text, servicer):
    call = stub.Say(text(text="hang"), timeout=0.2)
    assert 0 < call.time_remaining() <= 0.2
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await servicer.cancelled.wait()
    stream = stub.Count(text(text="hang"), timeout=0.2)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stream.read()
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_call_without_a_timeout_has_none(address, generated, text):
    deadlines = []

    async def note(call: Call, call_next):
        deadlines.append(call.timeout)
        return await call_next(call)

    async with grpcio.channel(address, middleware=[note]) as channel:
        await generated.grpc.EchoStub(channel).Say(text())
    assert deadlines == [None]


async def test_what_is_no_message_raises_what_its_serializer_raised(stub, text):
    with pytest.raises(TypeError):
        await stub.Say("no message")
    call = stub.Chat()
    with pytest.raises(TypeError):
        await call.write("no message")
    call.cancel()


async def test_metadata_goes_along_in_grpcs_forms(stub, text, servicer):
    await stub.Say(text(), metadata=grpc.aio.Metadata(("x-a", "1"), ("x-b-bin", b"\x00"), ("x-b-bin", b"\xff")))
    assert [pair for pair in servicer.metadata if pair[0].startswith("x-")] == [
        ("x-a", "1"),
        ("x-b-bin", b"\x00"),
        ("x-b-bin", b"\xff"),
    ]
    with pytest.raises(TypeError, match="x-n"):
        await stub.Say(text(), metadata=(("x-n", 1),))


async def test_what_cannot_be_is_refused_by_name(stub, text, address):
    token = grpc.access_token_call_credentials("secret")
    for method in (stub.Say, stub.Count, stub.Join, stub.Chat):
        with pytest.raises(NotImplementedError, match=r"credentials= .*metadata"):
            method(text(), credentials=token)
    with pytest.raises(NotImplementedError, match="Deflate"):
        stub.Say(text(), compression=grpc.Compression.Deflate)
    with pytest.raises(ConfigurationError, match="xds"):
        grpcio.channel("xds:///users")


# Streams


async def test_replies_are_read_or_iterated_not_both(stub, text):
    call = stub.Count(text(text="3"))
    assert (await call.read()).text == "0"
    with pytest.raises(grpc.aio.UsageError):
        aiter(call)
    assert [(await call.read()).text for _ in "12"] == ["1", "2"]
    assert await call.read() is grpc.aio.EOF
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


async def test_initial_metadata_comes_before_any_message(stub, text):
    call = stub.Chat()
    assert dict(await call.initial_metadata()) == {"x-initial": "1"}
    await call.write(text(text="a"))
    assert (await call.read()).text == "a"
    await call.done_writing()
    await call.done_writing()
    with pytest.raises(asyncio.InvalidStateError):
        await call.write(text())
    assert await call.read() is grpc.aio.EOF


async def test_requests_are_written_or_given_not_both(stub, text):
    call = stub.Join(iter(texts(text, "a", "b")))
    with pytest.raises(grpc.aio.UsageError):
        await call.write(text())
    with pytest.raises(grpc.aio.UsageError):
        await call.done_writing()
    assert (await call).text == "a+b"
    call = stub.Join()
    for one in texts(text, "c", "d"):
        await call.write(one)
    await call.done_writing()
    assert (await call).text == "c+d"
    with pytest.raises(asyncio.InvalidStateError):
        await call.write(text())


async def test_the_status_is_there_before_the_replies_are_read(stub, text):
    call = stub.Count(text(text="0"))
    assert await call.code() is grpc.StatusCode.OK
    call = stub.Count(text(text="2"))
    waiting = asyncio.ensure_future(call.code())
    assert [reply.text async for reply in call] == ["0", "1"]
    assert await waiting is grpc.StatusCode.OK


async def test_a_stream_that_fails_tells_its_reader_everything(stub, text):
    call = stub.Chat(iter(texts(text, "a", "abort", "b")))
    replies = aiter(call)
    assert (await anext(replies)).text == "a"
    with pytest.raises(grpc.RpcError) as caught:
        await anext(replies)
    error = caught.value
    assert (error.code(), error.details()) == (grpc.StatusCode.ABORTED, "told to")
    assert dict(error.initial_metadata()) == {"x-initial": "1"}
    assert dict(error.trailing_metadata()) == {"x-hint": "h"}
    with pytest.raises(grpc.RpcError):
        await call.wait_for_connection()


async def test_an_iterator_of_requests_that_fails_cancels_the_call(stub, text, caplog):
    def requests():
        yield text(text="a")
        raise ValueError("broken")

    call = stub.Join(requests())
    with pytest.raises(asyncio.CancelledError):
        await call
    assert "broken" in caplog.text


async def test_a_cancelled_stream_ends_on_both_sides(stub, text, servicer):
    call = stub.Count(text(text="hang"))
    await servicer.started.wait()
    reading = asyncio.ensure_future(call.read())
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert (await call.code(), call.cancelled()) == (grpc.StatusCode.CANCELLED, True)
    await servicer.cancelled.wait()


async def test_a_stream_that_nobody_holds_any_more_is_cancelled(stub, text, servicer):
    call = stub.Count(text(text="hang"))
    await call.initial_metadata()
    await servicer.started.wait()
    del call
    gc.collect()
    await servicer.cancelled.wait()


async def test_a_stream_to_nobody_fails_for_whoever_asks(generated, text):
    async with grpcio.channel("127.0.0.1:1") as channel:
        stub = generated.grpc.EchoStub(channel)
        for made in (stub.Count(text()), stub.Chat(), stub.Join()):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await (made if hasattr(made, "__await__") else made.read())
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            with pytest.raises(grpc.aio.AioRpcError):
                await made.wait_for_connection()
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.Chat().write(text())


# A channel


async def test_a_channels_state_follows_its_calls(address, generated, text):
    channel = grpcio.channel(address)
    states = grpc.ChannelConnectivity
    assert channel.get_state() is states.IDLE
    changed = asyncio.ensure_future(channel.wait_for_state_change(states.IDLE))
    await generated.grpc.EchoStub(channel).Say(text())
    await changed
    assert channel.get_state() is states.READY
    await channel.close()
    assert channel.get_state() is states.SHUTDOWN
    with pytest.raises(grpc.aio.UsageError, match="closed"):
        generated.grpc.EchoStub(channel).Say(text())


async def test_a_channel_connects_when_it_is_asked_to(address):
    async with grpcio.channel(address) as channel:
        await channel.channel_ready()
        assert channel.get_state() is grpc.ChannelConnectivity.READY
    async with grpcio.channel(address) as channel:
        channel.get_state(try_to_connect=True)
        while channel.get_state() is not grpc.ChannelConnectivity.READY:
            await channel.wait_for_state_change(channel.get_state())
    async with grpcio.channel("127.0.0.1:1") as channel:
        channel.get_state(try_to_connect=True)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(channel.channel_ready(), 0.1)


async def test_a_failed_call_shows_in_the_state(generated, text):
    async with grpcio.channel("127.0.0.1:1") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await generated.grpc.EchoStub(channel).Say(text())
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert channel.get_state() is grpc.ChannelConnectivity.TRANSIENT_FAILURE


async def test_wait_for_ready_waits_for_the_server(sides, make, generated, text, tmp_path):
    async with grpcio.channel(f"unix:{tmp_path}/s") as channel:
        call = generated.grpc.EchoStub(channel).Say(text(text="a"), wait_for_ready=True, timeout=20)
        await asyncio.sleep(0)
        service = Service("late", registry="memory", broker="memory", address=f"unix:{tmp_path}/s")
        generated.grpc.add_EchoServicer_to_server(make(), grpcio.server(service))
        async with service:
            assert (await call).text == "a one"


async def test_closing_with_grace_lets_calls_finish_and_without_cancels_them(address, generated, text, servicer):
    channel = grpcio.channel(address)
    stub = generated.grpc.EchoStub(channel)
    stream = stub.Join()
    await stream.write(text(text="a"))
    await servicer.started.wait()
    closing = asyncio.ensure_future(channel.close(grace=10))
    await stream.done_writing()
    assert (await stream).text == "a"
    await closing
    channel = grpcio.channel(address)
    servicer.started.clear()
    hanging = generated.grpc.EchoStub(channel).Say(text(text="hang"))
    await servicer.started.wait()
    await channel.close()
    with pytest.raises(asyncio.CancelledError):
        await hanging


async def test_several_addresses_share_the_calls_and_stand_in_for_each_other(sides, make, generated, text):
    serve = sides[0]["stock"]

    def adding(name):
        return lambda server: generated.grpc.add_EchoServicer_to_server(make(name), server)

    async with (
        serve(adding("one")) as one,
        serve(adding("two")) as two,
        grpcio.channel(f"{one},127.0.0.1:1,{two}") as channel,
    ):
        stub = generated.grpc.EchoStub(channel)
        replies = {(await stub.Say(text())).text for _ in range(6)}
    assert replies == {" one", " two"}


# Through a client


@pytest.fixture
async def services(make, generated):
    """Two instances of one service in a memory registry."""
    registry = f"memory://fit-{uuid4()}"
    running = [Service("fit", registry=registry, broker="memory", address="127.0.0.1:0") for _ in range(2)]
    for number, service in enumerate(running):
        generated.grpc.add_EchoServicer_to_server(make(str(number)), grpcio.server(service))
        await service.__aenter__()
    yield registry, running
    for service in running:
        await service.__aexit__(None, None, None)


async def test_a_client_finds_the_instances_and_its_middleware_is_around_the_calls(services, generated, text):
    registry, _ = services
    seen = []

    async def middleware(call: Call, call_next):
        seen.append((call.kind, call.name, call.payload))
        call.metadata["x-from"] = "middleware"
        return await call_next(call)

    client = Client.from_env(registry=registry, broker="memory", middleware=[middleware], environ={})
    async with client:
        stub = generated.grpc.EchoStub(grpcio.channel(client))
        assert {(await stub.Say(text())).text for _ in range(40)} == {" 0", " 1"}
        assert seen[0] == (Kind.REQUEST, "/grpcio_fit.v1.Echo/Say", text())
        assert [reply.text async for reply in stub.Count(text(text="2"))] == ["0", "1"]
        assert seen[-1] == (Kind.REQUEST, "/grpcio_fit.v1.Echo/Count", text(text="2"))


async def test_a_client_goes_elsewhere_when_an_instance_has_gone(services, generated, text):
    registry, running = services
    async with Client.from_env(registry=registry, broker="memory", environ={}) as client:
        stub = generated.grpc.EchoStub(grpcio.channel(client, "fit"))
        assert {(await stub.Say(text())).text for _ in range(40)} == {" 0", " 1"}
        await running[0]._running._listeners[0].stop(0)  # it is still in the registry
        assert {(await stub.Say(text())).text for _ in range(6)} == {" 1"}


async def test_a_running_service_is_a_target_and_one_that_is_stopped_says_so(make, generated, text):
    service = Service("fit", registry="memory", broker="memory", address="127.0.0.1:0")
    generated.grpc.add_EchoServicer_to_server(make(), grpcio.server(service))
    channel = grpcio.channel(service)
    stub = generated.grpc.EchoStub(channel)
    with pytest.raises(NotRunning):
        await stub.Say(text())
    async with service:
        assert (await stub.Say(text(text="a"))).text == "a one"
        with pytest.raises(NotImplementedError, match="which service"):
            await channel.channel_ready()
        await grpcio.channel(service, "fit").channel_ready()
    await channel.close()


async def test_an_error_of_a_middleware_is_raised_as_it_is(address, generated, text):
    async def refuse(call: Call, call_next):
        raise PermissionError("not with me")

    async def answer(call: Call, call_next):
        raise errors.Unauthenticated("who?")

    async with grpcio.channel(address, middleware=[refuse]) as channel:
        stub = generated.grpc.EchoStub(channel)
        call = stub.Say(text())
        with pytest.raises(PermissionError):
            await call
        assert await call.code() is grpc.StatusCode.UNKNOWN
        with pytest.raises(PermissionError):
            await stub.Count(text()).read()
    async with grpcio.channel(address, middleware=[answer]) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await generated.grpc.EchoStub(channel).Say(text())
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


def test_middleware_goes_with_an_address_only():
    with pytest.raises(ConfigurationError, match="middleware="):
        grpcio.channel(Service("fit"), middleware=[lambda call, call_next: call_next(call)])
