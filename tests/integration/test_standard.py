"""Health and reflection, as stock gRPC tools see them."""

import asyncio

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from ketch import Service, Topic
from ketch.registries.memory import MemoryRegistry
from ketch.standard.messages import message, pool
from ketch.testing.servers import nats_server
from shippy.consignment.v1.consignment_ketch import ConsignmentService
from shippy.consignment.v1.consignment_pb2 import Consignment, CreateRequest, CreateResponse

CONTRACT = "shippy.consignment.v1.ConsignmentService"
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
created = Topic("consignment.created", Consignment)


class Consignments(ConsignmentService):
    async def create(self, request, /):
        return CreateResponse(consignment=Consignment(weight=request.weight))


def make(broker="memory", **more):
    service = Service("consignments", broker=broker, registry=MemoryRegistry(), address="127.0.0.1:0", **more)
    service.serve(Consignments())

    @service.subscribe(created)
    async def hear(consignment: Consignment) -> None: ...

    return service


@pytest.fixture
async def service():
    service = make()
    service.init((), {})
    async with service:
        yield service


@pytest.fixture
async def stock(service):
    async with grpc.aio.insecure_channel(service.address) as channel:
        yield channel


async def check(channel, name=""):
    reply = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=name), timeout=5)
    return reply.status


# health


async def test_a_running_service_is_serving_as_a_whole_and_by_contract_and_topic(stock):
    for name in ("", CONTRACT, "topic:consignment.created"):
        assert await check(stock, name) == SERVING
    listed = await health_pb2_grpc.HealthStub(stock).List(health_pb2.HealthListRequest())
    assert {name: one.status for name, one in listed.statuses.items()} == {
        "": SERVING,
        CONTRACT: SERVING,
        "topic:consignment.created": SERVING,
    }


async def test_a_name_that_is_not_served_is_not_found(stock):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await check(stock, "nobody.Knows")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_who_watches_hears_of_each_change(service, stock):
    watch = health_pb2_grpc.HealthStub(stock).Watch(health_pb2.HealthCheckRequest(service=""))
    assert (await watch.read()).status == SERVING
    service.health.report("", "the card reader is away")
    assert (await watch.read()).status == NOT_SERVING
    assert await check(stock) == NOT_SERVING
    assert await check(stock, CONTRACT) == SERVING
    service.health.report("", "")
    assert (await watch.read()).status == SERVING
    service.health.report(CONTRACT, "its table is gone")
    assert await check(stock, CONTRACT) == NOT_SERVING
    watch.cancel()


async def test_who_watches_an_unknown_name_hears_so_and_of_its_coming(service, stock):
    watch = health_pb2_grpc.HealthStub(stock).Watch(health_pb2.HealthCheckRequest(service="later"))
    assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    service.health.report("later", "not yet")
    assert (await watch.read()).status == NOT_SERVING
    watch.cancel()


async def test_who_watches_hears_of_the_end_and_does_not_delay_it():
    service = make(grace=30)
    service.init((), {})
    async with asyncio.timeout(10), service:
        channel = grpc.aio.insecure_channel(service.address)
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=""))
        assert (await watch.read()).status == SERVING
    assert (await watch.read()).status == NOT_SERVING
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await watch.read()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    await channel.close()


async def test_a_service_whose_broker_is_away_is_not_serving_until_it_is_back(caplog):
    async with nats_server() as server:
        service = make(server.url)
        service.init((), {})
        async with service, grpc.aio.insecure_channel(service.address) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=""))
            assert (await watch.read()).status == SERVING
            await server.kill()
            assert (await asyncio.wait_for(watch.read(), 10)).status == NOT_SERVING
            assert await check(channel, "topic:consignment.created") == NOT_SERVING
            assert await check(channel, CONTRACT) == SERVING
            await server.start()
            assert (await asyncio.wait_for(watch.read(), 10)).status == SERVING
            watch.cancel()
    assert f"not serving: the connection to {server.url} is lost" in caplog.text


async def test_a_service_whose_consumer_died_is_not_serving(service, stock):
    consumer = service._declared.consumers[0]
    consumer._task.cancel()
    await asyncio.wait({consumer._task})
    assert await check(stock) == NOT_SERVING
    assert "handles no events of consignment.created" in service.health.trouble()


async def test_a_check_of_ones_own_counts_from_the_start(caplog):
    service = make()
    well = False

    @service.health_check
    async def database() -> None:
        if not well:
            raise ConnectionError("no route to postgres:secret@db")

    service.init((), {})
    async with service, grpc.aio.insecure_channel(service.address) as channel:
        assert await check(channel) == NOT_SERVING
        assert "database" in service.health.trouble()
        assert "secret" not in service.health.trouble()
        well = True
        await service.health._run_checks()
        assert await check(channel) == SERVING


async def test_ketchs_own_clients_and_json_reach_it_too(service):
    request = message("grpc.health.v1.HealthCheckRequest")
    async with service.options.transport:
        channel = service.options.transport.connect(service.address)
        reply = await channel.unary("/grpc.health.v1.Health/Check", b"{}", content_type="application/json")
        await channel.close()
    assert b"SERVING" in reply
    assert request.DESCRIPTOR.file.pool is pool()


# reflection


async def ask(channel, **question):
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(**question)]))
    return await anext(aiter(call))


async def test_a_stock_client_calls_by_reflection_alone(service):
    def call():
        with grpc.insecure_channel(service.address) as channel:
            database = ProtoReflectionDescriptorDatabase(channel)
            names = sorted(database.get_services())
            found = descriptor_pool.DescriptorPool(database).FindServiceByName(CONTRACT)
            method = found.methods_by_name["Create"]
            return names, method.input_type.full_name, sorted(method.input_type.fields_by_name)

    names, request, fields = await asyncio.to_thread(call)
    assert names == [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        CONTRACT,
    ]
    assert request == CreateRequest.DESCRIPTOR.full_name
    assert fields == sorted(CreateRequest.DESCRIPTOR.fields_by_name)


@pytest.mark.parametrize(
    "symbol",
    [
        CONTRACT,
        f"{CONTRACT}.Create",
        "shippy.consignment.v1.Consignment",
        "shippy.consignment.v1.Consignment.weight",
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
    ],
)
async def test_a_symbols_file_comes_with_what_it_imports(stock, symbol):
    answer = await ask(stock, file_containing_symbol=symbol)
    files = [
        descriptor_pb2.FileDescriptorProto.FromString(raw)
        for raw in answer.file_descriptor_response.file_descriptor_proto
    ]
    assert symbol.startswith(files[0].package)
    assert {name for file in files for name in file.dependency} <= {file.name for file in files}


async def test_version_1_answers_like_version_1alpha(stock):
    alpha = await ask(stock, list_services="")
    path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
    call = stock.stream_stream(path)(
        iter([reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()])
    )
    (answer,) = [reflection_pb2.ServerReflectionResponse.FromString(raw) async for raw in call]
    assert answer == alpha


@pytest.mark.parametrize(
    ("question", "code"),
    [
        ({"file_by_filename": "../../etc/passwd"}, 5),
        ({"file_containing_symbol": "no.Such"}, 5),
        ({"file_containing_symbol": "google.protobuf.compiler.CodeGeneratorRequest"}, 5),
        ({"all_extension_numbers_of_type": "no.Such"}, 5),
        ({"file_containing_extension": reflection_pb2.ExtensionRequest(containing_type="a", extension_number=1)}, 5),
        ({}, 3),
    ],
)
async def test_what_cant_be_answered_is_an_error_in_the_stream(stock, question, code):
    assert (await ask(stock, **question)).error_response.error_code == code


async def test_a_message_without_extensions_has_none(stock):
    answer = await ask(stock, all_extension_numbers_of_type="shippy.consignment.v1.Consignment")
    assert answer.all_extension_numbers_response.base_type_name == "shippy.consignment.v1.Consignment"
    assert list(answer.all_extension_numbers_response.extension_number) == []


async def test_reflection_can_be_switched_off():
    service = make()
    service.init(("--server-reflection", "off"), {})
    async with service, grpc.aio.insecure_channel(service.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            # Not as a stream: grpc.aio's client tells INTERNAL where one ends while it is still sending.
            await channel.unary_unary("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")(b"")
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert await check(channel) == SERVING
