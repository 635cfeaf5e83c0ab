"""Events that are of use for a while: how a deadline passes into them."""

import math
import time
from dataclasses import dataclass
from typing import ClassVar

import pytest

from ketch import Message, Publisher, RequestTopic, Service, Topic, context, testing
from ketch.errors import ConfigurationError, DeadlineExceeded
from ketch.expiry import EXPIRES, expires_in, seconds_left
from ketch.rpc import Method, Servicer, Stub
from ketch.testing.servers import nats_server


@dataclass
class Job:
    name: str


jobs = Topic("jobs", Job, lifetime=60.0)
hints = Topic("hints", Job, lifetime=math.inf)
done = Topic("done", Job)
START = Method("work.Work", "Start", str, str)


class WorkStub(Stub):
    contract = "work.Work"

    def start(self, name, timeout=None):
        return self._unary(START, name, timeout, None)


def message(**headers):
    return Message("jobs", {name.replace("_", "-"): value for name, value in headers.items()}, b"{}")


def test_a_time_is_written_as_it_is_read():
    assert 9 < seconds_left(message(ce_expirytime=expires_in(10))) <= 10
    assert expires_in(math.inf).startswith("2")


def test_what_is_past_is_past():
    assert seconds_left(message(ce_expirytime="2001-01-01T00:00:00Z")) < 0


def test_a_time_of_another_zone_or_of_none_is_read():
    assert seconds_left(message(ce_expirytime="2101-01-01T00:00:00+02:00")) > 0
    assert seconds_left(message(ce_expirytime="2101-01-01T00:00:00")) > 0


@pytest.mark.parametrize("said", ["", "soon", "9" * 400])
def test_what_is_no_time_says_nothing(said):
    assert seconds_left(message(ce_expirytime=said)) is None


def test_a_lifetime_is_more_than_nothing():
    with pytest.raises(ConfigurationError, match="lifetime"):
        Topic("x", Job, lifetime=0)


@pytest.fixture(params=["memory", "direct", "nats"])
async def pinned(request):
    if request.param == "nats":
        async with nats_server() as server:
            yield {"broker": server.url}
    else:
        yield {} if request.param == "memory" else {"broker": "direct"}


async def test_an_event_past_its_lifetime_is_skipped_and_the_next_one_handled(pinned):
    service = Service("worker")
    handled = []

    @service.subscribe(jobs)
    async def work(job: Job) -> None:
        handled.append((job.name, context.current().remaining()))
        await finished.publish(job)

    finished = service.publisher(done)
    async with testing.run(service, **pinned) as app:
        watched = await app.watch(done)
        publisher = await app.publisher(jobs)
        broker = publisher._broker
        headers = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "t", "ce-type": "Job"}
        old = {**headers, "content-type": "application/json", EXPIRES: "2001-01-01T00:00:00Z"}
        await broker.publish(Message("jobs", old, b'{"name":"late"}'))
        await publisher.publish(Job("in time"))
        assert await watched.next() == Job("in time")
    (name, left), *more = handled
    assert (name, more) == ("in time", [])
    assert 50 < left <= 60


async def test_an_event_published_for_a_call_lives_no_longer_than_its_deadline():
    service = Service("worker")
    hinted, announced = service.publisher(hints), service.publisher(done)
    seen = {}

    class Work(Servicer):
        contract = "work.Work"
        methods: ClassVar = {"start": START}

        async def start(self, name: str) -> str:
            await hinted.publish(Job(name))
            return name

    @service.subscribe(hints)
    async def hint(job: Job) -> None:
        seen[job.name] = context.current().remaining()
        await announced.publish(job)

    service.serve(Work())
    async with testing.run(service) as app:
        watched = await app.watch(done)
        await app.stub(WorkStub).start("hurried", timeout=20)
        assert await watched.next() == Job("hurried")
        await (await app.publisher(hints)).publish(Job("unhurried"))
        assert await watched.next() == Job("unhurried")
    assert 10 < seen["hurried"] <= 20
    assert seen["unhurried"] is None


async def test_batches_leave_out_what_is_past_its_lifetime():
    service = Service("worker")
    announced = service.publisher(done)

    @service.subscribe(jobs, batch=2, within=0.05)
    async def work(batch: list[Job]) -> None:
        for job in batch:
            await announced.publish(job)

    async with testing.run(service) as app:
        watched = await app.watch(done)
        publisher = await app.publisher(jobs)
        headers = {"ce-id": "1", "content-type": "application/json", EXPIRES: "2001-01-01T00:00:00Z"}
        await publisher._broker.publish(Message("jobs", headers, b'{"name":"late"}'))
        await publisher.publish(Job("in time"))
        assert await watched.next() == Job("in time")


async def test_a_request_has_its_requesters_deadline():
    ask = RequestTopic("ask", Job, Job)
    service = Service("worker")
    left = []

    @service.reply(ask)
    async def answer(job: Job) -> Job:
        left.append(context.current().remaining())
        return job

    async with testing.run(service) as app:
        requester = await app.requester(ask)
        assert await requester.request(Job("x"), timeout=7) == Job("x")
    assert 5 < left[0] <= 7


def test_a_publisher_of_such_a_topic_is_declared_as_any():
    assert Publisher(jobs).topic.lifetime == 60.0


async def test_a_service_waits_at_start_for_those_that_it_needs():
    shop = Service("shop")
    shop.need("stock", timeout=20)
    stock = Service("stock")

    class Work(Servicer):
        contract = "work.Work"
        methods: ClassVar = {"start": START}

        async def start(self, name: str) -> str:
            return name

    stock.serve(Work())
    async with testing.run(stock, shop) as app:
        assert await app.stub(WorkStub).start("x") == "x"


async def test_a_service_whose_need_is_not_met_does_not_start():
    shop = Service("shop")
    shop.need(WorkStub, timeout=0.1)
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded, match=r"work\.Work"):
        async with testing.run(shop):
            pass
    assert time.monotonic() - began < 30
