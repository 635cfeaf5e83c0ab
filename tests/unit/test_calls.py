"""Typed calls through the whole stack but the sockets: stub, client, transport, server, servicer."""

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import ClassVar

import pytest

from ketch import (
    AlreadyExists,
    Call,
    Kind,
    NotFound,
    Service,
    StatusError,
    Topic,
    Unavailable,
    Unknown,
    context,
    testing,
)
from ketch.errors import DeadlineExceeded, Internal, InvalidArgument, Unimplemented
from ketch.rpc import Cardinality, Method, Servicer, Stub


@dataclass
class Number:
    value: int


_DOUBLE = Method("calc.Calc", "Double", Number, Number)
_COUNT = Method("calc.Calc", "Count", Number, Number, Cardinality.SERVER_STREAM)
_SUM = Method("calc.Calc", "Sum", Number, Number, Cardinality.CLIENT_STREAM)
_RUNNING = Method("calc.Calc", "Running", Number, Number, Cardinality.BIDIRECTIONAL)


class Calc(Servicer):
    """As generated."""

    contract = "calc.Calc"
    methods: ClassVar = {"double": _DOUBLE, "count": _COUNT, "sum": _SUM, "running": _RUNNING}

    @abstractmethod
    async def double(self, request: Number, /) -> Number: ...
    @abstractmethod
    def count(self, request: Number, /) -> AsyncIterator[Number]: ...
    @abstractmethod
    async def sum(self, requests: AsyncIterator[Number], /) -> Number: ...
    @abstractmethod
    def running(self, requests: AsyncIterator[Number], /) -> AsyncIterator[Number]: ...


class CalcStub(Stub):
    """As generated."""

    contract = "calc.Calc"

    def double(self, request, /, *, timeout=None, metadata=None):
        return self._unary(_DOUBLE, request, timeout, metadata)

    def count(self, request, /, *, timeout=None, metadata=None):
        return self._server_stream(_COUNT, request, timeout, metadata)

    def sum(self, requests, /, *, timeout=None, metadata=None):
        return self._client_stream(_SUM, requests, timeout, metadata)

    def running(self, requests, /, *, timeout=None, metadata=None):
        return self._bidirectional(_RUNNING, requests, timeout, metadata)


class EmailTaken(AlreadyExists):
    """A user's own error."""


class Calculator(Calc):
    def __init__(self):
        self.ended = asyncio.Event()
        self.seen = {}

    async def double(self, request, /):
        self.seen = dict(context.current().metadata)
        match request.value:
            case 404:
                raise NotFound("no such number")
            case 409:
                raise EmailTaken("taken", details=[b"\x0a\x01x"], metadata={"why": "twice"})
            case 500:
                raise RuntimeError("secret details")
            case 501:
                return "no number"
            case 504:
                await asyncio.Event().wait()
        context.current().reply_metadata["region"] = "north"
        context.current().trailers["served-by"] = "calculator"
        context.current().trailers["raw-bin"] = b"\x00\xff"
        return Number(request.value * 2)

    async def count(self, request, /):
        context.current().reply_metadata["region"] = "south"
        try:
            for value in range(request.value):
                yield Number(value)
            context.current().trailers["counted"] = str(request.value)
            if request.value == 13:
                raise NotFound("unlucky")
        finally:
            self.ended.set()

    async def sum(self, requests, /):
        context.current().reply_metadata["region"] = "west"
        values = [request.value async for request in requests]
        context.current().trailers["summed"] = str(len(values))
        return Number(sum(values))

    async def running(self, requests, /):
        total = 0
        async for request in requests:
            total += request.value
            yield Number(total)


async def numbers(*values):
    for value in values:
        yield Number(value)


@pytest.fixture
def calculator():
    return Calculator()


@pytest.fixture
async def stub(calculator):
    service = Service("calculator")
    service.serve(calculator)
    async with testing.run(service) as app:
        yield app.stub(CalcStub)


async def test_a_call_is_answered(stub):
    assert await stub.double(Number(21)) == Number(42)


async def test_metadata_reaches_the_handler(stub, calculator):
    await stub.double(Number(1), metadata={"token": "t"})
    assert calculator.seen == {"token": "t"}


async def test_binary_metadata_reaches_the_handler_and_comes_back(stub, calculator):
    with context.ReplyMetadata() as received:
        await stub.double(Number(1), metadata={"token-bin": b"\x01\x02"})
    assert context.from_base64(calculator.seen["token-bin"]) == [b"\x01\x02"]
    assert context.from_base64(received.trailers["raw-bin"]) == [b"\x00\xff"]


async def test_a_caller_who_asks_gets_the_metadata_of_a_reply(stub):
    with context.ReplyMetadata() as outer:
        with context.ReplyMetadata() as received:
            await stub.double(Number(1))
        assert dict(received.metadata) == {"region": "north"}
        assert received.trailers["served-by"] == "calculator"
        assert (outer.metadata, outer.trailers) == (received.metadata, received.trailers)
        with pytest.raises(AlreadyExists):
            await stub.double(Number(409))
        assert outer.trailers["why"] == "twice"
        assert received.trailers["served-by"] == "calculator"


async def test_a_call_with_a_stream_of_requests_brings_the_metadata_of_its_reply(stub):
    with context.ReplyMetadata() as received:
        assert await stub.sum(numbers(1, 2)) == Number(3)
    assert dict(received.metadata) == {"region": "west"}
    assert dict(received.trailers) == {"summed": "2"}


async def test_a_stream_of_replies_has_the_metadata(stub):
    replies = stub.count(Number(2))
    assert (dict(replies.metadata), dict(replies.trailers)) == ({}, {})
    assert [reply.value async for reply in replies] == [0, 1]
    assert dict(replies.metadata) == {"region": "south"}
    assert dict(replies.trailers) == {"counted": "2"}


async def test_an_error_crosses_the_wire_as_itself(stub):
    with pytest.raises(NotFound, match="no such number"):
        await stub.double(Number(404))


async def test_an_error_of_ones_own_arrives_as_its_parent_with_details_and_metadata(stub):
    with pytest.raises(AlreadyExists) as caught:
        await stub.double(Number(409))
    assert (caught.value.message, caught.value.details, dict(caught.value.metadata)) == (
        "taken",
        (b"\x0a\x01x",),
        {"why": "twice"},
    )


async def test_a_handler_that_breaks_tells_the_caller_nothing_of_its_insides(stub, caplog):
    with pytest.raises(Unknown) as caught:
        await stub.double(Number(500))
    assert "secret" not in caught.value.message
    assert "secret details" in caplog.text
    assert await stub.double(Number(1)) == Number(2)


async def test_a_reply_of_the_wrong_type_is_internal(stub, caplog):
    with pytest.raises(Internal):
        await stub.double(Number(501))
    assert "can't encode str as Number" in caplog.text


async def test_a_hanging_handler_ends_with_the_deadline(stub):
    with pytest.raises(DeadlineExceeded):
        await stub.double(Number(504), timeout=0.05)


async def raw_channel(stub):
    finder = stub._caller._calling.finder
    await finder.look("calc.Calc", None)
    return finder.roster("calc.Calc").candidates[0].channel


async def test_a_garbage_request_is_an_invalid_argument(stub):
    channel = await raw_channel(stub)
    with pytest.raises(InvalidArgument, match="no JSON of Number"):
        await channel.unary("/calc.Calc/Double", b"garbage", content_type="application/json")


async def test_an_unknown_content_type_is_unimplemented(stub):
    channel = await raw_channel(stub)
    with pytest.raises(Unimplemented, match="text/html"):
        await channel.unary("/calc.Calc/Double", b"", content_type="text/html")


async def test_an_unknown_method_is_unimplemented(stub):
    channel = await raw_channel(stub)
    with pytest.raises(Unimplemented):
        await channel.unary("/calc.Calc/Nope", b"", content_type="application/json")


async def test_a_server_streams(stub):
    assert [reply.value async for reply in stub.count(Number(100))] == list(range(100))


async def test_a_servers_stream_that_fails_ends_with_its_error(stub):
    replies = stub.count(Number(13))
    assert [(await anext(replies)).value for _ in range(13)] == list(range(13))
    with pytest.raises(NotFound, match="unlucky"):
        await anext(replies)


async def test_leaving_a_stream_early_ends_the_handler(stub, calculator):
    async with stub.count(Number(1_000_000)) as replies:
        assert await anext(replies) == Number(0)
    await asyncio.wait_for(calculator.ended.wait(), 5)


async def test_a_client_streams(stub):
    assert await stub.sum(numbers(1, 2, 3)) == Number(6)


async def test_both_stream(stub):
    assert [reply.value async for reply in stub.running(numbers(1, 2, 3))] == [1, 3, 6]


async def test_an_error_in_the_requests_cancels_the_call_and_is_raised(stub):
    async def broken():
        yield Number(1)
        raise ValueError("out of numbers")

    with pytest.raises(ValueError, match="out of numbers"):
        _ = [reply async for reply in stub.running(broken())]


async def test_a_service_that_nobody_runs_is_unavailable():
    async with testing.run() as app:
        with pytest.raises(Unavailable, match=r"calc\.Calc: no instance"):
            await app.stub(CalcStub).double(Number(1))


async def test_calls_are_spread_over_the_instances():
    services = [Service("calculator"), Service("calculator")]
    calculators = [Calculator(), Calculator()]
    for service, calculator in zip(services, calculators, strict=True):
        service.serve(calculator)
    async with testing.run(*services) as app:
        stub = app.stub(CalcStub)
        for _ in range(40):
            await stub.double(Number(1), metadata={"x": "y"})
    assert all(calculator.seen for calculator in calculators)


async def test_two_services_of_one_name_are_told_apart_by_their_contract():
    calculating, other = Service("calculator"), Service("calculator")
    calculating.serve(Calculator())
    async with testing.run(calculating, other) as app:
        for _ in range(4):
            assert await app.stub(CalcStub).double(Number(1)) == Number(2)


async def test_a_handlers_deadline_bounds_the_calls_it_makes():
    seen = {}

    class Outer(Calculator):
        async def double(self, request, /):
            seen["left"] = context.current().remaining()
            return await inner.double(request, timeout=60)

    class Inner(Calculator):
        async def double(self, request, /):
            seen["inner"] = context.current().remaining()
            return await super().double(request)

    front, back = Service("front"), Service("back")
    front.serve(Outer())
    back.serve(Inner())
    inner = front.stub(CalcStub, "back")
    async with testing.run(front, back) as app:
        await app.stub(CalcStub, "front").double(Number(1), timeout=3)
    assert 0 < seen["inner"] <= seen["left"] <= 3


async def test_middleware_sees_all_four_kinds_of_traffic_first_one_outermost():
    trace = []

    async def outer(call: Call, call_next):
        trace.append(("outer", call.kind, call.name))
        return await call_next(call)

    async def inner(call: Call, call_next):
        trace.append(("inner", call.kind, call.name))
        if call.kind is Kind.REQUEST:
            call.metadata["token"] = "t"
        return await call_next(call)

    service = Service("calculator", middleware=[outer, inner])
    calculator = Calculator()
    service.serve(calculator)
    topic = Topic("numbers", Number)
    heard = asyncio.Event()

    @service.subscribe(topic)
    async def hear(number: Number) -> None:
        heard.set()

    publisher = service.publisher(topic)
    own = service.stub(CalcStub)
    async with testing.run(service):
        assert await own.double(Number(2)) == Number(4)
        assert [reply.value async for reply in own.count(Number(2))] == [0, 1]
        await publisher.publish(Number(1))
        await asyncio.wait_for(heard.wait(), 5)
    assert calculator.seen == {"token": "t"}
    kinds = [kind for who, kind, _ in trace if who == "outer"]
    assert [kind.value for kind in kinds] == ["request", "serve", "request", "serve", "publish", "consume"]
    assert [who for who, *_ in trace[:2]] == ["outer", "inner"]


async def test_a_middleware_may_refuse_a_call():
    async def refuse(call: Call, call_next):
        if call.kind is Kind.SERVE and "token" not in call.metadata:
            raise NotFound("who are you")
        return await call_next(call)

    service = Service("calculator", middleware=[refuse])
    service.serve(Calculator())
    async with testing.run(service) as app:
        stub = app.stub(CalcStub)
        with pytest.raises(StatusError, match="who are you"):
            await stub.double(Number(1))
        assert await stub.double(Number(1), metadata={"token": "t"}) == Number(2)
