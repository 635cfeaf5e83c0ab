"""What a type checker must accept and refuse in servicers and calls; an ignore that isn't needed fails mypy itself."""

from shippy.consignment.v1.consignment_ketch import ConsignmentService, ConsignmentServiceStub
from shippy.consignment.v1.consignment_pb2 import Consignment, CreateRequest, CreateResponse
from shippy.user.v1.user_pb2 import GetRequest


class Consignments(ConsignmentService):
    async def create(self, request: CreateRequest, /) -> CreateResponse:
        return CreateResponse(consignment=Consignment(weight=request.weight))


class NamesItsArgument(ConsignmentService):
    async def create(self, request: CreateRequest) -> CreateResponse:
        return CreateResponse(consignment={"weight": request.weight})


class Lacks(ConsignmentService):
    pass


class TakesAnother(ConsignmentService):
    async def create(self, request: GetRequest, /) -> CreateResponse:  # type: ignore[override]
        return CreateResponse()


class GivesAnother(ConsignmentService):
    async def create(self, request: CreateRequest, /) -> GetRequest:  # type: ignore[override]
        return GetRequest()


class IsNotAsync(ConsignmentService):
    def create(self, request: CreateRequest, /) -> CreateResponse:  # type: ignore[override]
        return CreateResponse()


servicers = [Consignments(), NamesItsArgument()]
lacks = Lacks()  # type: ignore[abstract]


async def call(stub: ConsignmentServiceStub) -> int:
    reply = await stub.create(CreateRequest(weight=3), timeout=2.0, metadata={"token": "t"})
    return reply.consignment.weight


async def call_wrongly(stub: ConsignmentServiceStub) -> str:
    await stub.create(GetRequest())  # type: ignore[arg-type]
    await stub.create(CreateRequest(), timeout="2s")  # type: ignore[arg-type]
    await stub.delete(CreateRequest())  # type: ignore[attr-defined]
    return await stub.create(CreateRequest())  # type: ignore[return-value]
