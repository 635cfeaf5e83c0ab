"""What may go wrong around a service: each gets a clear error, or the service goes on."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import textwrap
from dataclasses import dataclass

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp

from ketch import Service, Topic, testing
from ketch.errors import MessageTooLarge, PluginNotFound
from ketch.message import Message, event_headers, stamp

ticked = Topic("ticked", Timestamp)


@dataclass
class Job:
    name: str


@pytest.fixture
async def clock():
    """A service that takes timestamps, on the default broker; yields a way to publish anything, and what it took."""
    service = Service("clock")
    took: asyncio.Queue[int] = asyncio.Queue()

    @service.subscribe(ticked)
    async def tick(stamp: Timestamp) -> None:
        await took.put(stamp.seconds)

    async with testing.run(service, broker="direct") as app:
        await app.client.connect_broker()
        yield app, took


async def publish(app, body, **headers):
    await app.client.options.broker.publish(Message("ticked", headers, body))


@pytest.mark.parametrize(
    ("body", "headers", "said"),
    [
        (b"\xff\xff\xff", {"content-type": "application/protobuf"}, "no google.protobuf.Timestamp"),
        (b"\xff\xff\xff", {}, "no google.protobuf.Timestamp"),
        (b"{garbage", {}, "no JSON of Timestamp"),
        (b'"tomorrow"', {"content-type": "application/json"}, "no JSON of Timestamp"),
        (b"x", {"content-type": "text/html"}, "no codec for content type 'text/html'"),
        (
            b"",
            {"content-type": "application/protobuf", "ce-type": "google.protobuf.Struct"},
            "is a google.protobuf.Struct",
        ),
    ],
    ids=["garbage", "garbage that says nothing", "broken JSON", "JSON that is no time", "HTML", "another type"],
)
async def test_an_event_that_cannot_be_decoded_is_logged_and_the_next_one_is_taken(clock, caplog, body, headers, said):
    app, took = clock
    await publish(app, body, **headers)
    await app.publish(ticked, Timestamp(seconds=7))
    assert await asyncio.wait_for(took.get(), 5) == 7
    assert said in caplog.text


async def test_a_plain_client_need_not_say_what_it_sends(clock):
    app, took = clock
    await publish(app, Timestamp(seconds=1).SerializeToString())
    await publish(app, b'"1970-01-01T00:00:02Z"', **{"content-type": "application/json"})
    assert [await asyncio.wait_for(took.get(), 5) for _ in range(2)] == [1, 2]


async def test_a_plain_client_may_send_json_without_saying_so():
    service = Service("places")
    places = Topic("places", Struct)
    took: asyncio.Queue[Struct] = asyncio.Queue()

    @service.subscribe(places)
    async def take(place: Struct) -> None:
        await took.put(place)

    async with testing.run(service) as app:
        await app.client.connect_broker()
        await app.client.options.broker.publish(Message("places", {}, b'{"name": "Ada"}'))
        assert (await asyncio.wait_for(took.get(), 5))["name"] == "Ada"


async def test_a_huge_event_is_refused_where_it_is_published_and_the_broker_goes_on(clock):
    app, took = clock
    with pytest.raises(MessageTooLarge, match="over"):
        await publish(app, bytes(5 * 1024 * 1024))
    await app.publish(ticked, Timestamp(seconds=7))
    assert await asyncio.wait_for(took.get(), 5) == 7


async def test_an_event_of_another_type_is_not_taken_for_ours(clock, caplog):
    """Duration and Timestamp look the same on the wire; only the event's type tells them apart."""
    app, took = clock
    headers = stamp(event_headers(source="test", type="google.protobuf.Duration", content_type="application/protobuf"))
    await publish(app, Duration(seconds=99).SerializeToString(), **headers)
    await app.publish(ticked, Timestamp(seconds=7))
    assert await asyncio.wait_for(took.get(), 5) == 7
    assert "the event is a google.protobuf.Duration, not a google.protobuf.Timestamp" in caplog.text


def test_an_unknown_broker_is_named_with_the_nearest_there_is():
    with pytest.raises(PluginNotFound, match="Broker natss not found; did you mean nats"):
        Service("x").init([], {"MICRO_BROKER": "natss"})


PROGRAM = """
    import asyncio, os, signal, sys
    from dataclasses import dataclass
    from ketch import Service, Topic

    @dataclass
    class Job:
        name: str

    jobs = Topic("jobs", Job)
    service = Service("worker")

    @service.subscribe(jobs)
    async def work(job: Job) -> None:
        if job.name == "deadly":
            os.kill(os.getpid(), signal.SIGKILL)
        print("did", job.name, flush=True)

    if __name__ == "__main__":
        service.run()
"""


@pytest.fixture
def start(tmp_path):
    """Start the worker as a process of its own, on the defaults: direct, local, grpc."""
    (tmp_path / "worker.py").write_text(textwrap.dedent(PROGRAM))
    running = []

    def start(*args):
        process = subprocess.Popen(
            [sys.executable, str(tmp_path / "worker.py"), *args],
            env={"PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": str(tmp_path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


def read_until(process, text):
    for line in process.stdout:
        if text in line:
            return line
    return pytest.fail(f"{text!r} did not come")


def test_a_port_that_is_taken_is_a_failed_start_with_one_clear_line(start):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = start("--server-address", f"127.0.0.1:{taken.getsockname()[1]}")
        output, _ = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "in use" in output
    assert "Traceback" not in output


async def test_a_handler_that_kills_its_process_harms_neither_publisher_nor_other_subscribers(start, tmp_path):
    jobs = Topic("jobs", Job)
    other = Service("other", registry=f"local://{tmp_path}/ketch/registry")
    heard: asyncio.Queue[str] = asyncio.Queue()

    async def hear(job) -> None:
        await heard.put(job.name)

    other.subscribe(jobs)(hear)
    created = other.publisher(jobs)
    victim = start()
    await asyncio.to_thread(read_until, victim, "is up")
    async with other:
        await created.publish(Job("deadly"))
        assert await asyncio.to_thread(victim.wait, 20) == -signal.SIGKILL
        assert await asyncio.wait_for(heard.get(), 5) == "deadly"
        successor = start()
        await asyncio.to_thread(read_until, successor, "is up")
        for _ in range(50):  # the publisher hears of the successor within the registry's lag
            await created.publish(Job("harmless"))
            assert await asyncio.wait_for(heard.get(), 5) == "harmless"
            await asyncio.sleep(0.02)
        await asyncio.to_thread(read_until, successor, "did harmless")
