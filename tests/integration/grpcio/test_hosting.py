"""Servicers written for grpc.aio, hosted by ketch."""

# ruff: noqa: N802 - methods are called as their rpcs are

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc.aio
import pytest
from grpc_channelz.v1 import channelz, channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

from ketch import Client, NotFound, Service, context, grpcio, testing
from ketch.errors import Cancelled, ConfigurationError
from ketch.transports.grpc import GrpcTransport

PROTOBUF = "application/protobuf"


@pytest.fixture
def echo(generated):
    """Make a servicer of some methods, and what adds it to a server."""

    def make(**methods):
        servicer = type("Echo", (generated.grpc.EchoServicer,), methods)()
        return lambda server: generated.grpc.add_EchoServicer_to_server(servicer, server)

    return make


@pytest.fixture
def text(generated):
    return generated.pb2.Text


@pytest.fixture
def hosted(sides):
    return sides[0]["ketch"]


@pytest.fixture
def stub(generated):
    return generated.grpc.EchoStub


# Registration


def test_a_contract_is_served_once(echo, text):
    service = Service("fit")
    echo()(grpcio.server(service))
    with pytest.raises(ConfigurationError, match=r"serves grpcio_fit\.v1\.Echo already"):
        echo()(grpcio.server(service))


def test_handlers_that_do_not_say_their_methods_are_refused_with_what_to_do():
    class Anything(grpc.GenericRpcHandler):
        def service(self, handler_call_details):
            return None

    with pytest.raises(NotImplementedError, match=r"Anything.*method_handlers_generic_handler"):
        grpcio.server(Service("fit")).add_generic_rpc_handlers((Anything(),))


async def test_the_service_runs_the_server_and_the_adapter_says_so():
    server = grpcio.server(Service("fit"))
    for refused in (
        lambda: server.add_insecure_port("[::]:1"),
        lambda: server.add_secure_port("[::]:1", grpc.ssl_server_credentials([(b"key", b"chain")])),
    ):
        with pytest.raises(NotImplementedError, match="ketch runs the server"):
            refused()
    for refused in (server.start(), server.stop(None), server.wait_for_termination()):
        with pytest.raises(NotImplementedError, match="ketch runs the server"):
            await refused


async def test_handlers_without_serializers_get_and_give_bytes(hosted):
    async def reverse(request, _):
        return request[::-1]

    handlers = {"Reverse": grpc.unary_unary_rpc_method_handler(reverse)}

    def add(server):
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("raw.Bytes", handlers),))

    async with hosted(add) as address, grpc.aio.insecure_channel(address) as channel:
        assert await channel.unary_unary("/raw.Bytes/Reverse")(b"abc") == b"cba"


async def test_discovery_health_reflection_and_json_know_a_hosted_contract(echo, text, stub):
    async def Say(self, request, context):
        return text(text=request.text.upper())

    service = Service("fit", registry="memory", broker="memory", address="127.0.0.1:0")
    echo(Say=Say)(grpcio.server(service))
    async with service, grpc.aio.insecure_channel(service.address) as channel:
        watch = service.options.registry.watch("grpcio_fit.v1.Echo")
        assert [instance.service for instance in await anext(watch)] == ["fit"]
        await watch.aclose()

        check = health_pb2_grpc.HealthStub(channel).Check
        reply = await check(health_pb2.HealthCheckRequest(service="grpcio_fit.v1.Echo"))
        assert reply.status == health_pb2.HealthCheckResponse.SERVING

        ask = reflection_pb2.ServerReflectionRequest(file_containing_symbol="grpcio_fit.v1.Echo")
        info = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([ask]))
        assert b"grpcio_fit" in (await info.read()).file_descriptor_response.file_descriptor_proto[0]
        info.cancel()

        ours = GrpcTransport().connect(service.address)
        json = await ours.unary("/grpcio_fit.v1.Echo/Say", b'{"text": "a"}', content_type="application/json", timeout=5)
        assert json == b'{"text": "A"}'
        await ours.close()


# Third-party servicers


async def test_grpcios_own_health_servicer_takes_the_place_of_ours(hosted):
    servicer = health.aio.HealthServicer()
    await servicer.set("mine", health_pb2.HealthCheckResponse.NOT_SERVING)

    def add(server):
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)

    async with hosted(add) as address, grpc.aio.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service="mine")
        assert (await stub.Check(request)).status == health_pb2.HealthCheckResponse.NOT_SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Check(health_pb2.HealthCheckRequest(service="unknown"))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        watch = stub.Watch(request)
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        await servicer.set("mine", health_pb2.HealthCheckResponse.SERVING)
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()


async def test_grpcios_blocking_health_servicer_is_hosted_too(hosted):
    servicer = health.HealthServicer()
    servicer.set("mine", health_pb2.HealthCheckResponse.SERVING)

    def add(server):
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)

    async with hosted(add) as address, grpc.aio.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        reply = await stub.Check(health_pb2.HealthCheckRequest(service="mine"))
        assert reply.status == health_pb2.HealthCheckResponse.SERVING


async def test_grpcios_reflection_and_channelz_servicers_are_hosted(hosted, generated):
    def add(server):
        reflection.enable_server_reflection(["grpcio_fit.v1.Echo"], server)
        channelz.add_channelz_servicer(server)

    async with hosted(add) as address, grpc.aio.insecure_channel(address) as channel:
        ask = reflection_pb2.ServerReflectionRequest(list_services="")
        info = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([ask]))
        told = (await info.read()).list_services_response.service
        assert "grpcio_fit.v1.Echo" in [service.name for service in told]
        await info.code()
        stub = channelz_pb2_grpc.ChannelzStub(channel)
        await stub.GetServers(channelz_pb2.GetServersRequest(start_server_id=0))


# Middleware and interceptors


async def test_middleware_wraps_hosted_methods_with_typed_payloads(echo, text, stub, hosted):
    async def Say(self, request, context):
        return text(text=f"said {request.text}")

    async def Chat(self, request_iterator, context):
        async for request in request_iterator:
            await context.write(text(text=f"chatted {request.text}"))

    seen = []

    async def middleware(call, call_next):
        seen.append((call.kind, call.name, type(call.payload)))
        if isinstance(call.payload, text):
            call.payload.text += "!"
        reply = await call_next(call)
        if isinstance(reply, text):
            return text(text=reply.text + "?")

        async def louder():
            async for one in reply:
                yield text(text=one.text.upper())

        return louder()

    async with (
        hosted(echo(Say=Say, Chat=Chat), middleware=[middleware]) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        assert (await stub(channel).Say(text(text="a"))).text == "said a!?"
        replies = [one.text async for one in stub(channel).Chat(iter([text(text="b"), text(text="c")]))]
    assert replies == ["CHATTED B", "CHATTED C"]
    assert seen[0] == ("serve", "/grpcio_fit.v1.Echo/Say", text)


class Noting(grpc.aio.ServerInterceptor):
    def __init__(self, name, seen):
        self.name = name
        self.seen = seen

    async def intercept_service(self, continuation, handler_call_details):
        self.seen.append((self.name, handler_call_details.method, dict(handler_call_details.invocation_metadata)))
        return await continuation(handler_call_details)


class Guard(grpc.aio.ServerInterceptor):
    """As grpc's own example has it: whatever the method, a unary handler that aborts."""

    async def intercept_service(self, continuation, handler_call_details):
        async def abort(_, context):
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "no token")

        if "token" in dict(handler_call_details.invocation_metadata):
            return await continuation(handler_call_details)
        return grpc.unary_unary_rpc_method_handler(abort)


async def test_grpc_aios_interceptors_are_around_hosted_calls(echo, text, stub, hosted):
    async def Say(self, request, context):
        return request

    async def Count(self, request, context):
        yield request

    seen = []
    interceptors = [Noting("outer", seen), Guard(), Noting("inner", seen)]
    async with (
        hosted(echo(Say=Say, Count=Count), interceptors=interceptors) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        calls = stub(channel)
        for call in (calls.Say(text()), calls.Count(text()).read()):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert [name for name, *_ in seen] == ["outer", "outer"]
        token = (("token", "t"),)
        assert await calls.Say(text(text="a"), metadata=token) == text(text="a")
        assert [one.text async for one in calls.Count(text(text="b"), metadata=token)] == ["b"]
    assert ("inner", "/grpcio_fit.v1.Echo/Say", {"token": "t"}) in seen


# Handlers


async def test_a_ketch_status_may_be_raised_in_a_hosted_handler(echo, text, stub, hosted):
    async def Say(self, request, context):
        context.set_trailing_metadata((("x-t", "1"),))
        raise NotFound("not here", metadata={"x-hint": "h"})

    async with hosted(echo(Say=Say)) as address, grpc.aio.insecure_channel(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub(channel).Say(text())
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.NOT_FOUND, "not here")
    assert dict(caught.value.trailing_metadata()) == {"x-t": "1", "x-hint": "h"}


async def test_an_error_in_a_handler_is_logged_and_its_text_stays_here(echo, text, stub, hosted, caplog):
    async def Say(self, request, context):
        raise ValueError("secret")

    async with hosted(echo(Say=Say)) as address, grpc.aio.insecure_channel(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub(channel).Say(text())
    assert caught.value.code() is grpc.StatusCode.UNKNOWN
    assert "secret" not in caught.value.details()
    assert "secret" in caplog.text


async def test_a_reply_of_the_wrong_type_is_internal(echo, text, stub, hosted):
    async def Say(self, request, context):
        return "no message"

    async with hosted(echo(Say=Say)) as address, grpc.aio.insecure_channel(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub(channel).Say(text())
    assert caught.value.code() is grpc.StatusCode.INTERNAL


async def test_a_caller_who_cancels_cancels_the_handler_and_callbacks_hear_of_it(echo, text, stub, hosted):
    started, told = asyncio.Event(), asyncio.get_running_loop().create_future()
    states = []

    async def Say(self, request, context):
        context.add_done_callback(lambda context: told.set_result((context.cancelled(), context.done())))
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            states.append(context.cancelled())
            raise

    async with hosted(echo(Say=Say)) as address, grpc.aio.insecure_channel(address) as channel:
        call = stub(channel).Say(text())
        await started.wait()
        call.cancel()
        assert await told == (True, True)
    assert states == [True]


@pytest.mark.parametrize("style", ["yields", "writes"])
async def test_a_caller_who_leaves_a_stream_cancels_its_handler(echo, text, stub, hosted, style):
    ended = asyncio.Event()

    async def yields(self, request, context):
        try:
            while True:
                yield text(text="x" * 10_000)
        finally:
            ended.set()

    async def writes(self, request, context):
        try:
            while True:
                await context.write(text(text="x" * 10_000))
        finally:
            ended.set()

    async with (
        hosted(echo(Count=yields if style == "yields" else writes)) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        call = stub(channel).Count(text())
        assert len((await call.read()).text) == 10_000
        call.cancel()
        await ended.wait()


async def test_initial_metadata_of_a_stream_is_there_before_any_message(echo, text, stub, hosted):
    async def Chat(self, request_iterator, context):
        await context.send_initial_metadata((("x-hello", "1"),))
        async for request in request_iterator:
            yield request

    async with hosted(echo(Chat=Chat)) as address, grpc.aio.insecure_channel(address) as channel:
        call = stub(channel).Chat()
        assert dict(await call.initial_metadata())["x-hello"] == "1"
        await call.write(text(text="now"))
        assert (await call.read()).text == "now"
        await call.done_writing()


async def test_a_task_that_still_reads_when_its_handler_returns_is_let_go(echo, text, stub, hosted):
    readers = []

    async def Chat(self, request_iterator, context):
        async def read():
            return [request.text async for request in request_iterator]

        readers.append(asyncio.create_task(read()))
        await context.write(text(text="bye"))

    async with hosted(echo(Chat=Chat)) as address, grpc.aio.insecure_channel(address) as channel:
        call = stub(channel).Chat()
        assert (await call.read()).text == "bye"
        assert await call.code() is grpc.StatusCode.OK
        assert await asyncio.wait_for(readers[0], 5) == []


async def test_tasks_of_a_handler_may_write_at_the_same_time(echo, text, stub, hosted):
    async def Count(self, request, context):
        await asyncio.gather(*(context.write(text(text=str(number))) for number in range(20)))

    async with hosted(echo(Count=Count)) as address, grpc.aio.insecure_channel(address) as channel:
        assert sorted([int(one.text) async for one in stub(channel).Count(text())]) == list(range(20))


async def test_a_task_that_still_writes_when_its_call_has_ended_fails(echo, text, stub, hosted):
    writers = []

    async def Count(self, request, context):
        async def write():
            while True:
                await context.write(text(text="more"))

        writers.append(asyncio.create_task(write()))
        await context.write(text(text="first"))

    async with hosted(echo(Count=Count)) as address, grpc.aio.insecure_channel(address) as channel:
        call = stub(channel).Count(text())
        replies = [reply.text async for reply in call]
        assert replies[0] == "first"
        with pytest.raises(Cancelled):
            await asyncio.wait_for(writers[0], 5)


async def test_writing_in_a_handler_that_yields_is_refused_by_name(echo, text, stub, hosted, caplog):
    async def Count(self, request, context):
        await context.write(text())
        yield text()

    async with hosted(echo(Count=Count)) as address, grpc.aio.insecure_channel(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await stub(channel).Count(text()).read()
    assert "NotImplementedError: write() in a handler that yields" in caplog.text


async def test_a_stream_chooses_compression_for_each_message(echo, text, stub, hosted):
    async def Count(self, request, _):
        _.set_compression(grpc.Compression.Gzip)
        _.disable_next_message_compression()
        yield text(text="a" * 1000)
        yield text(text="a" * 1000)

    async with hosted(echo(Count=Count)) as address:
        channel = GrpcTransport().connect(address)
        stream = await channel.stream("/grpcio_fit.v1.Echo/Count", content_type=PROTOBUF, timeout=5)
        await stream.send(b"")
        await stream.end()
        flags = []
        while await stream.receive() is not None:
            flags.append(stream.inbox.compressed)
        await channel.close()
    assert flags == [False, True]


async def test_deflate_is_refused_by_name(echo, text, stub, hosted, caplog):
    async def Say(self, request, context):
        context.set_compression(grpc.Compression.Deflate)

    async with hosted(echo(Say=Say)) as address, grpc.aio.insecure_channel(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await stub(channel).Say(text())
    assert "Deflate" in caplog.text


async def test_calls_that_a_handler_makes_inherit_its_deadline(echo, text, stub, hosted):
    async def Say(self, request, _):
        return text(text=str(context.current().remaining() is not None))

    async with hosted(echo(Say=Say)) as address, grpc.aio.insecure_channel(address) as channel:
        assert (await stub(channel).Say(text(), timeout=30)).text == "True"
        assert (await stub(channel).Say(text())).text == "False"


async def test_mutual_tls_tells_who_calls_as_grpcio_does(echo, text, stub, hosted, authority):
    async def Say(self, request, context):
        return text(text=f"{context.peer_identity_key()} {context.peer_identities()} {sorted(context.auth_context())}")

    cert, key = authority.issue("server")
    own_cert, own_key = authority.issue("caller", "caller.example", "other.example", common_name="caller")
    server = f"grpc://?server_tls_cert={cert}&server_tls_key={key}&server_tls_client_ca={authority.root}"
    client = f"grpc://?client_tls_ca={authority.root}&client_tls_cert={own_cert}&client_tls_key={own_key}"
    read = [Path(path).read_bytes() for path in (authority.root, own_key, own_cert)]  # noqa: ASYNC240 - small files
    async with hosted(echo(Say=Say), transport=server) as address:
        async with grpc.aio.secure_channel(address, grpc.ssl_channel_credentials(*read)) as channel:
            theirs = (await stub(channel).Say(text())).text
        async with grpcio.channel(address, transport=client) as channel:
            ours = (await stub(channel).Say(text())).text
    names = "[b'caller.example', b'other.example']"
    keys = "['transport_security_type', 'x509_common_name', 'x509_subject_alternative_name']"
    assert theirs == ours == f"x509_subject_alternative_name {names} {keys}"


# Handlers that block


@pytest.mark.parametrize("error", [StopIteration, ValueError])
async def test_an_error_in_a_blocking_handler_is_unknown(echo, text, stub, hosted, error):
    def Say(self, request, context):
        raise error("inside")

    async with hosted(echo(Say=Say)) as address, grpc.aio.insecure_channel(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub(channel).Say(text(), timeout=20)
    assert caught.value.code() is grpc.StatusCode.UNKNOWN


async def test_plain_functions_run_in_the_pool_with_the_calls_context(echo, text, stub, hosted):
    def Say(self, request, _):
        return text(text=f"{threading.current_thread().name} {context.current().metadata.get('x-a')}")

    with ThreadPoolExecutor(1, thread_name_prefix="mine") as pool:
        async with (
            hosted(echo(Say=Say), migration_thread_pool=pool) as address,
            grpc.aio.insecure_channel(address) as channel,
        ):
            reply = await stub(channel).Say(text(), metadata=(("x-a", "1"),))
    assert reply.text == "mine_0 1"


async def test_a_blocking_handler_can_see_that_its_caller_has_gone(echo, text, stub, hosted):
    started, seen = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def Say(self, request, context):
        gone = threading.Event()
        context.add_callback(gone.set)
        loop.call_soon_threadsafe(started.set)
        gone.wait(10)
        if not context.is_active():
            loop.call_soon_threadsafe(seen.set)

    async with hosted(echo(Say=Say)) as address, grpc.aio.insecure_channel(address) as channel:
        call = stub(channel).Say(text())
        await started.wait()
        call.cancel()
        await seen.wait()


async def test_a_blocking_generator_is_closed_when_its_caller_leaves(echo, text, stub, hosted):
    closed = asyncio.Event()
    loop = asyncio.get_running_loop()

    def Count(self, request, context):
        try:
            while True:
                yield text(text="x" * 10_000)
        finally:
            loop.call_soon_threadsafe(closed.set)

    async with hosted(echo(Count=Count)) as address, grpc.aio.insecure_channel(address) as channel:
        call = stub(channel).Count(text())
        await call.read()
        call.cancel()
        await closed.wait()


async def test_a_blocking_generator_that_aborts_has_sent_what_it_yielded(echo, text, stub, hosted):
    def Count(self, request, context):
        yield text(text="a")
        context.abort(grpc.StatusCode.NOT_FOUND, "no more")

    async with hosted(echo(Count=Count)) as address, grpc.aio.insecure_channel(address) as channel:
        call = stub(channel).Count(text())
        assert (await call.read()).text == "a"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
    assert caught.value.details() == "no more"


async def test_hosted_servicers_run_in_the_testing_kit(echo, text, generated):
    async def Say(self, request, context):
        return request

    service = Service("fit")
    echo(Say=Say)(grpcio.server(service))
    async with testing.run(service) as app:
        assert isinstance(app.client, Client)
        reply = await app.stub(generated.ketch.EchoStub).say(text(text="from a ketch stub"))
    assert reply.text == "from a ketch stub"
