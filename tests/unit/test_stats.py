"""What a service counts: its calls and its events, by method and by handler."""

import asyncio
from dataclasses import dataclass

import pytest

from ketch import NotFound, RetryPolicy, Service, Topic, testing
from ketch.errors import StatusError
from ketch.registries.memory import MemoryRegistry
from ketch.rpc import Cardinality, Method, Servicer, Stub
from ketch.stats import MethodStats, Stats, TopicStats, total


@dataclass
class Number:
    value: int


_HALVE = Method("calc.Half", "Halve", Number, Number)
_DOWN = Method("calc.Half", "Down", Number, Number, Cardinality.SERVER_STREAM)


class Half(Servicer):
    contract = "calc.Half"
    methods = {"halve": _HALVE, "down": _DOWN}  # noqa: RUF012 - as generated, but shorter

    def __init__(self):
        self.began = asyncio.Event()

    async def halve(self, request):
        self.began.set()
        if request.value == 0:
            raise NotFound("no half of nothing")
        if request.value == 1:
            raise ValueError("odd")
        if request.value == 3:
            await asyncio.Event().wait()
        return Number(request.value // 2)

    async def down(self, request):
        for value in range(request.value, 0, -1):
            yield Number(value)
        if request.value == 13:
            raise NotFound("bad luck")


class HalfStub(Stub):
    contract = "calc.Half"

    def halve(self, request, timeout=None):
        return self._unary(_HALVE, request, timeout, None)

    def down(self, request):
        return self._server_stream(_DOWN, request, None, None)


class Observing(MemoryRegistry):
    """Keeps what it is given."""

    stats = None
    methods_then = ()

    def observe(self, stats):
        self.stats = stats

    async def register(self, instance):
        self.methods_then = [method.method for method in self.stats.methods]
        await super().register(instance)


async def until(true):
    """Wait for what happens after the other side has had its answer; the test's time limit bounds it."""
    for _ in range(1000):
        if true():
            return
        await asyncio.sleep(0.005)
    pytest.fail("it did not happen")


@pytest.fixture
async def calculator():
    service = Service("calc")
    half = Half()
    service.serve(half)
    async with testing.run(service) as app:
        yield app.stub(HalfStub), half, service._running.stats


async def test_calls_are_counted_by_method_and_failures_by_status(calculator):
    stub, _, stats = calculator
    await stub.halve(Number(4))
    for value in (0, 0, 1):
        with pytest.raises(StatusError):
            await stub.halve(Number(value))
    halve, down = stats.methods
    assert (halve.method, halve.calls, halve.running, halve.errors) == ("/calc.Half/Halve", 4, 0, 3)
    assert halve.failures == {"NOT_FOUND": 2, "UNKNOWN": 1}
    assert halve.last_failure == "UNKNOWN"
    assert halve.seconds > 0
    assert down == MethodStats("/calc.Half/Down")


async def test_a_call_in_hand_is_running_and_one_given_up_has_failed(calculator):
    stub, half, stats = calculator
    call = asyncio.ensure_future(stub.halve(Number(3)))
    await half.began.wait()
    assert (stats.methods[0].running, stats.methods[0].calls) == (1, 0)
    call.cancel()
    await asyncio.wait([call])
    await until(lambda: not stats.methods[0].running)
    assert (stats.methods[0].calls, stats.methods[0].failures) == (1, {"CANCELLED": 1})


async def test_streams_are_counted_when_they_end(calculator):
    stub, _, stats = calculator
    assert len([number async for number in stub.down(Number(5))]) == 5
    with pytest.raises(NotFound):
        _ = [number async for number in stub.down(Number(13))]
    assert (stats.methods[1].calls, stats.methods[1].failures, stats.methods[1].running) == (2, {"NOT_FOUND": 1}, 0)


@pytest.mark.parametrize("terms", [{}, {"concurrency": 4}, {"batch": 1, "within": 0}], ids=["serial", "many", "batch"])
async def test_events_are_counted_by_what_becomes_of_them(terms):
    topic, service, seen = Topic("number.seen", Number), Service("calc"), asyncio.Queue()

    @service.subscribe(topic, retry=RetryPolicy(attempts=2, backoff=0), **terms)
    async def handle(numbers) -> None:
        number = numbers[0] if isinstance(numbers, list) else numbers
        seen.put_nowait(number.value)
        if number.value == 0:
            raise ValueError("nothing")

    async with testing.run(service) as app:
        for value in (1, 0, 2):
            await app.publish(topic, Number(value))
        for _ in range(4):
            await asyncio.wait_for(seen.get(), 10)
        (stats,) = service._running.stats.topics
        await until(lambda: stats.dead and stats.handled == 2 and not stats.running)
        assert (stats.topic, stats.group) == ("number.seen", "calc")
        assert (stats.handled, stats.failed, stats.retried, stats.dead) == (2, 2, 1, 1)


async def test_a_registry_is_given_the_figures_before_it_registers():
    registry = Observing()
    service = Service("calc", registry=registry, broker="memory", transport="memory")
    service.serve(Half())
    async with service:
        assert registry.methods_then == ["/calc.Half/Halve", "/calc.Half/Down"]
        assert registry.stats is service._running.stats


def test_several_processes_add_up_and_a_snapshot_stays_as_it_is():
    one = Stats([MethodStats("/a.A/B", 3, 1, 0.5, {"NOT_FOUND": 1}, "NOT_FOUND")], [TopicStats("t", "g", "h", 5)])
    two = Stats([MethodStats("/a.A/B", 2, 0, 0.25, {"NOT_FOUND": 1, "UNKNOWN": 1}, "UNKNOWN")])
    two.topics = [TopicStats("t", "g", "h", 1, 2, 3, 4, 5, 6.0), TopicStats("t", "g", "other", 1)]
    both = total([one, two])
    assert both.methods == [MethodStats("/a.A/B", 5, 1, 0.75, {"NOT_FOUND": 2, "UNKNOWN": 1}, "UNKNOWN")]
    assert both.topics == [TopicStats("t", "g", "h", 6, 2, 3, 4, 5, 6.0), TopicStats("t", "g", "other", 1)]
    snapshot = one.snapshot()
    one.methods[0].fail("UNKNOWN")
    one.topics[0].handled += 1
    assert (snapshot.methods[0].errors, snapshot.topics[0].handled) == (1, 5)
