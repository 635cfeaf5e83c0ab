"""Run a go-micro service and a ketch service beside each other: calls, errors, streams, events, discovery, both ways.

    python interop/gomicro.py [-k etcd]

The Go program, in `interop/gomicro`, is built on the real module with the generator that comes with it, and is told
what to do over its standard input. It runs with go-micro's broker for NATS, and with each registry that both know. One
line a case; the exit code is pytest's.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
import pytest_asyncio
from consul import build
from contract.greeter_ketch import Greeter, GreeterStub
from contract.greeter_pb2 import CountRequest, FailRequest, Greeted, HelloReply, HelloRequest

from ketch import Service, StatusError, Topic, context
from ketch.errors import Code, NotFound, PermissionDenied, ResourceExhausted, Unknown, status_error
from ketch.plugins import Plugins
from ketch.settings import environment
from ketch.testing.servers import etcd_server, nats_server, program, rabbitmq_server
from ketch.testing.servers.consul import consul_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable

    from ketch.testing.servers import Server

#: Seconds for anything to happen.
PATIENCE: Final = 10.0
#: The registries that both know, as far as they are there.
REGISTRIES: Final = [name for name in ("nats", "etcd", "consul", "mdns") if name in Plugins().names("Registry")]
GO: Final = "go.greeter"
KETCH: Final = "ketch.greeter"


class PythonGreeter(Greeter):
    """Serves the contract as any ketch service would."""

    async def hello(self, request: HelloRequest, /) -> HelloReply:
        """Say who it is, and how much time it was given."""
        left = context.current().remaining()
        return HelloReply(text=f"Python greets {request.name}", milliseconds_left=int((left or 0) * 1000))

    async def fail(self, request: FailRequest, /) -> HelloReply:
        """End with the error of gRPC's code."""
        raise status_error(request.code, request.detail)

    async def count(self, request: CountRequest, /) -> AsyncIterator[HelloReply]:
        """Send so many replies, and fail after them if it is asked to."""
        for number in range(request.to):
            yield HelloReply(milliseconds_left=number)
        if request.fail:
            raise NotFound("there is no more")

    async def echo(self, requests: AsyncIterable[HelloRequest], /) -> AsyncIterator[HelloReply]:
        """Answer each message as it comes."""
        async for request in requests:
            yield HelloReply(text=f"Python greets {request.name}")


class Go:
    """The Go program, as it is told what to do."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self._turn = asyncio.Lock()

    async def line(self) -> Any:
        """Return what it says next."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            said = await self.process.stdout.readline()
        assert said, "the Go program has ended"
        return json.loads(said)

    async def do(self, what: str, **order: Any) -> Any:
        """Give an order; return the answer, which may be `{"error": …}`."""
        assert self.process.stdin is not None
        async with self._turn:
            self.process.stdin.write(json.dumps({"do": what, **order}).encode() + b"\n")
            return await self.line()

    async def stop(self) -> None:
        """Stop it as an operator would."""
        if self.process.returncode is None:
            self.process.terminate()
            async with asyncio.timeout(PATIENCE):
                await self.process.wait()


class Both:
    """A Go service and a Python service that share a registry and a broker."""

    def __init__(self, go: Go, service: Service, nats: str, registry: str) -> None:
        self.go = go
        self.service = service
        self.nats = nats
        self.registry = registry
        self.heard: list[tuple[str, Greeted, dict[str, str]]] = []

    @property
    def stub(self) -> GreeterStub:
        """What calls the Go service."""
        return self.service.stub(GreeterStub, GO)


async def until(look: Callable[[], Awaitable[Any]]) -> Any:
    """Look until there is something to see, and return it."""
    async with asyncio.timeout(PATIENCE):
        while not (seen := await look()):  # noqa: ASYNC110 - what is looked at is mostly another process
            await asyncio.sleep(0.05)
    return seen


@pytest.fixture(scope="session")
def binary(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Build the Go program; return its path."""
    path = str(tmp_path_factory.mktemp("gomicro") / "peer")
    go = program("go", "go.dev/dl", "/usr/local/go/bin")
    subprocess.run((go, "build", "-o", path, "."), cwd=__file__.removesuffix(".py"), check=True)
    return path


def both_read(url: str) -> str:
    """Return the URL of a broker of ketch on NATS that reads and writes go-micro's envelope."""
    return f"{url}?envelope=go-micro"


def on_nats(url: str) -> dict[str, str]:
    """Return the variables that bring a Go program to NATS for its events."""
    return {"MICRO_BROKER": "nats", "MICRO_BROKER_ADDRESS": url}


@asynccontextmanager
async def running_go(binary: str, broker: dict[str, str], registry: str, address: str) -> AsyncIterator[Go]:
    """Run the Go program, set up by go-micro's variables."""
    said = {
        **broker,
        "MICRO_REGISTRY": registry,
        "MICRO_REGISTRY_ADDRESS": address,
        "MICRO_REGISTER_TTL": "10",
        "MICRO_REGISTER_INTERVAL": "2",
        "MICRO_SERVER_ADDRESS": "127.0.0.1:0",
    }
    process = await asyncio.create_subprocess_exec(
        binary, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**environment(), **said}
    )
    go = Go(process)
    try:
        assert "ready" in await go.line()
        yield go
    finally:
        await go.stop()


def python(broker: str, registry: str, heard: list[tuple[str, Greeted, dict[str, str]]], **more: Any) -> Service:
    """Return a ketch service with go-micro's formats."""
    service = Service(KETCH, version="3.2.1", broker=broker, registry=registry, address="127.0.0.1:0", **more)
    service.serve(PythonGreeter())

    async def hear(subscriber: str, event: Greeted) -> None:
        heard.append((subscriber, event, dict(context.current().metadata)))

    service.subscribe(Topic("greeted.by.go", Greeted), group=None)(partial(hear, "all"))
    service.subscribe(Topic("shared.by.go", Greeted), group="shared")(partial(hear, "queue"))
    service.subscribe(Topic("shared.by.ketch", Greeted), group="shared")(partial(hear, "queue"))
    return service


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def nats() -> AsyncIterator[Server]:
    """Run a NATS server."""
    async with nats_server() as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=REGISTRIES)
async def registry(request: pytest.FixtureRequest, nats: Server) -> AsyncIterator[tuple[str, str]]:
    """Run a registry; yield its name and address."""
    name: str = request.param
    if name == "nats":
        yield name, nats.url.removeprefix("nats://")
    elif name == "etcd":
        async with etcd_server() as server:
            yield name, server.url.partition("://")[2]
    elif name == "consul":
        async with consul_server(program=build()) as server:
            yield name, server.url.partition("://")[2]
    else:
        yield name, ""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def both(binary: str, nats: Server, registry: tuple[str, str]) -> AsyncIterator[Both]:
    """Run both services until each has found the other."""
    name, address = registry
    async with running_go(binary, on_nats(nats.url), name, address) as go:
        found: list[tuple[str, Greeted, dict[str, str]]] = []
        url = f"{name}://{address}?format=go-micro"
        async with python(both_read(nats.url), url, found) as service:
            both = Both(go, service, nats.url, url)
            both.heard = found
            await service.client.ready(GO, PATIENCE)
            await until(partial(sees, go, KETCH))
            yield both


async def sees(go: Go, service: str) -> Any:
    """Return what the Go program finds in the registry; None for nothing."""
    found = await go.do("nodes", service=service)
    return None if isinstance(found, dict) else found


pytestmark = pytest.mark.asyncio(loop_scope="module")


# Go calls Python.


async def test_go_calls_ketch(both: Both) -> None:
    """By the name of its service; the path on the wire isn't the contract's."""
    reply = await both.go.do("hello", service=KETCH, name="Ada")
    assert reply["text"] == "Python greets Ada"


async def test_go_calls_ketch_with_json(both: Both) -> None:
    """Its codec is chosen by the request's content type."""
    reply = await both.go.do("json", service=KETCH, name="Ada")
    assert reply["text"] == "Python greets Ada"


async def test_go_timeout_is_a_deadline_in_ketch(both: Both) -> None:
    """Both are told: gRPC's timeout and go-micro's."""
    reply = await both.go.do("hello", service=KETCH, name="Ada", timeout=3000)
    assert 2000 < reply["milliseconds_left"] <= 3000


@pytest.mark.parametrize(
    ("code", "http"),
    [
        (Code.NOT_FOUND, 404),
        (Code.INVALID_ARGUMENT, 400),
        (Code.PERMISSION_DENIED, 403),
        (Code.ALREADY_EXISTS, 409),
        (Code.RESOURCE_EXHAUSTED, 429),
        (Code.INTERNAL, 500),
        (Code.UNAVAILABLE, 503),
    ],
)
async def test_an_error_of_ketch_is_one_of_go_micro(both: Both, code: Code, http: int) -> None:
    """With its code as HTTP has it, its text as the detail."""
    reply = await both.go.do("fail", service=KETCH, code=code, name="no user 7 <&> é")
    error = reply["error"]
    assert (error["code"], error["detail"], error["id"]) == (http, "no user 7 <&> é", Greeter.contract)


async def test_a_method_that_ketch_has_not_got_is_501(both: Both) -> None:
    """As any gRPC server's, which go-micro's client translates."""
    assert (await both.go.do("missing", service=KETCH))["error"]["code"] == 501


async def test_go_reads_a_stream_of_ketch(both: Both) -> None:
    """To its end."""
    assert await both.go.do("count", service=KETCH, number=5) == {"numbers": [0, 1, 2, 3, 4], "end": "EOF"}


async def test_go_reads_a_stream_that_fails_in_ketch(both: Both) -> None:
    """go-micro's client shows a stream's error as gRPC has it, with its own JSON as the message."""
    reply = await both.go.do("count", service=KETCH, number=2, fail=True)
    assert reply["numbers"] == [0, 1]
    assert "code = NotFound" in reply["end"]
    assert "there is no more" in reply["end"]


async def test_go_converses_with_ketch(both: Both) -> None:
    """Message by message."""
    assert await both.go.do("echo", service=KETCH, name="Ada", number=3) == {"texts": ["Python greets Ada"] * 3}


# Python calls Go.


async def test_ketch_calls_go(both: Both) -> None:
    """By the name of its service, since go-micro's registry doesn't know contracts."""
    assert (await both.stub.hello(HelloRequest(name="Ada"))).text == "Go greets Ada"


async def test_ketch_timeout_is_a_deadline_in_go(both: Both) -> None:
    """By gRPC's own timeout."""
    reply = await both.stub.hello(HelloRequest(name="Ada"), timeout=3)
    assert 2000 < reply.milliseconds_left <= 3000


@pytest.mark.parametrize(
    ("http", "error"), [(404, NotFound), (403, PermissionDenied), (429, ResourceExhausted), (418, Unknown)]
)
async def test_an_error_of_go_micro_is_one_of_ketch(both: Both, http: int, error: type[StatusError]) -> None:
    """With its detail as the message; what it said besides is among the details."""
    with pytest.raises(error) as caught:
        await both.stub.fail(FailRequest(code=http, detail="no user 7 <&> é"))
    assert caught.value.message == "no user 7 <&> é"
    assert b"go.greeter" in caught.value.details[0]


async def test_ketch_reads_a_stream_of_go(both: Both) -> None:
    """To its end."""
    assert [reply.milliseconds_left async for reply in both.stub.count(CountRequest(to=5))] == [0, 1, 2, 3, 4]


async def test_ketch_reads_a_stream_that_fails_in_go(both: Both) -> None:
    """What came before is there."""
    replies = both.stub.count(CountRequest(to=2, fail=True))
    assert [(await anext(replies)).milliseconds_left for _ in range(2)] == [0, 1]
    with pytest.raises(NotFound, match="there is no more"):
        await anext(replies)


async def test_ketch_converses_with_go(both: Both) -> None:
    """Message by message."""

    async def requests() -> AsyncIterator[HelloRequest]:
        for _ in range(3):
            yield HelloRequest(name="Ada")

    assert [reply.text async for reply in both.stub.echo(requests())] == ["Go greets Ada"] * 3


# Events.


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "application/protobuf",
        "application/json",
        "application/grpc",
        "application/grpc+json",
        "application/octet-stream",
    ],
)
async def test_go_publishes_and_ketch_hears(both: Both, content_type: str) -> None:
    """Whatever of go-micro's content types it is in; "" is the default of its gRPC client."""
    name = f"Ada in {content_type}"
    await both.go.do("publish", topic="greeted.by.go", name=name, number=7, content_type=content_type)

    async def look() -> bool:
        return ("all", Greeted(name=name, number=7)) in [heard[:2] for heard in both.heard]

    await until(look)


async def test_ketch_publishes_and_go_hears(both: Both) -> None:
    """Typed, with the metadata that was sent along."""
    client = both.service.client
    publisher = await client.publisher(Topic("greeted.by.ketch", Greeted))
    await publisher.publish(Greeted(name="Ada", number=8), metadata={"tenant": "bbc"})

    async def look() -> Any:
        return [one for one in await both.go.do("heard") if one["number"] == 8]

    (heard,) = await until(look)
    metadata = {name.lower(): value for name, value in heard["metadata"].items()}
    assert (heard["name"], metadata["tenant"], metadata["micro-topic"]) == ("Ada", "bbc", "greeted.by.ketch")
    assert metadata["micro-id"]


@pytest.mark.parametrize("source", ["ketch", "go"])
async def test_a_queue_of_go_and_ketch_shares_events(both: Both, source: str) -> None:
    """Each is handled once, by one of the two."""
    topic = f"shared.by.{source}"
    first = 1000 if source == "ketch" else 2000
    numbers = set(range(first, first + 60))
    publisher = await both.service.client.publisher(Topic(topic, Greeted))
    for number in numbers:
        if source == "go":
            await both.go.do("publish", topic=topic, name="shared", number=number)
        else:
            await publisher.publish(Greeted(name="shared", number=number))

    async def look() -> Any:
        there = [one["number"] for one in await both.go.do("heard") if one["number"] in numbers]
        here = [
            event.number for subscriber, event, _ in both.heard if subscriber == "queue" and event.number in numbers
        ]
        return (here, there) if len(here) + len(there) >= len(numbers) else None

    here, there = await until(look)
    assert sorted(here + there) == sorted(numbers)
    assert here
    assert there


# The registry.


async def test_each_is_in_the_registry_as_the_other_wants_it(both: Both, registry: tuple[str, str]) -> None:
    """Version, address, and the metadata that go-micro's clients go by."""
    (found,) = await sees(both.go, KETCH)
    (node,) = found["nodes"]
    assert (found["version"], node["address"]) == ("3.2.1", both.service.address)
    assert {"protocol": "grpc", "server": "grpc", "transport": "grpc", "registry": registry[0]}.items() <= (
        node["metadata"].items()
    )
    (candidate,) = both.service.client.candidates(GO)
    assert candidate.instance.version == "1.2.3"
    assert candidate.instance.metadata["protocol"] == "grpc"


async def test_a_ketch_client_finds_ketch_by_contract_in_go_micro_s_registry(both: Both) -> None:
    """The contracts travel in the node's metadata."""
    reply = await both.service.stub(GreeterStub).hello(HelloRequest(name="Ada"))
    assert reply.text == "Python greets Ada"


async def test_what_stops_is_gone_for_the_other(both: Both, binary: str, registry: tuple[str, str]) -> None:
    """A second Go instance comes and goes, then ketch's own."""
    client = both.service.client

    async def instances(wanted: int) -> bool:
        return len(client.candidates(GO)) == wanted

    async with running_go(binary, on_nats(both.nats), *registry):
        await until(partial(instances, 2))
    await until(partial(instances, 1))
    second = python(both_read(both.nats), both.registry, [])

    async def nodes(wanted: int) -> bool:
        found = await sees(both.go, KETCH)
        return sum(len(one["nodes"]) for one in found) == wanted

    async with second:
        await until(partial(nodes, 2))
    await until(partial(nodes, 1))
    assert (await both.go.do("hello", service=KETCH, name="Ada"))["text"]


# Other brokers.


@asynccontextmanager
async def on_another(
    binary: str, said: dict[str, str], broker: str
) -> AsyncIterator[tuple[Go, Service, list[tuple[str, Greeted, dict[str, str]]]]]:
    """Run both sides with etcd and another broker."""
    heard: list[tuple[str, Greeted, dict[str, str]]] = []
    async with etcd_server() as etcd:
        address = etcd.url.partition("://")[2]
        async with (
            running_go(binary, said, "etcd", address) as go,
            python(broker, f"etcd://{address}?format=go-micro", heard) as service,
        ):
            yield go, service, heard


async def hear_each_other(go: Go, service: Service, heard: list[tuple[str, Greeted, dict[str, str]]]) -> None:
    """Go publishes in two content types, then ketch."""
    for content_type in ("", "application/json"):
        name = f"Ada in {content_type}"
        await go.do("publish", topic="greeted.by.go", name=name, number=7, content_type=content_type)

        async def here(name: str = name) -> bool:
            return ("all", Greeted(name=name, number=7)) in [one[:2] for one in heard]

        await until(here)
    publisher = await service.client.publisher(Topic("greeted.by.ketch", Greeted))
    await publisher.publish(Greeted(name="Ada", number=8))

    async def there() -> Any:
        return [one for one in await go.do("heard") if (one["name"], one["number"]) == ("Ada", 8)]

    assert await until(there)


@pytest.mark.asyncio(loop_scope="function")
async def test_go_and_ketch_hear_each_other_on_rabbitmq(binary: str) -> None:
    """As they are: both write what RabbitMQ has a place for. The exchange has to be the same."""
    async with rabbitmq_server() as rabbitmq:
        said = {"INTEROP_RABBITMQ": rabbitmq.url.replace("rabbitmq://", "amqp://")}
        async with on_another(binary, said, rabbitmq.url) as (go, service, heard):
            await hear_each_other(go, service, heard)


@pytest.mark.asyncio(loop_scope="function")
async def test_go_and_ketch_hear_each_other_on_go_micros_default_broker(binary: str) -> None:
    """Its broker `http`, which finds subscribers in the registry; a queue is shared there, too."""
    async with on_another(binary, {"MICRO_BROKER": "http"}, "http") as (go, service, heard):
        await asyncio.sleep(1)  # both have a watch, which has yet to tell them of the other's subscriptions
        await hear_each_other(go, service, heard)
        publisher = await service.client.publisher(Topic("shared.by.ketch", Greeted))
        numbers = range(1000, 1060)
        for number in numbers:
            await publisher.publish(Greeted(name="shared", number=number))

        async def all_of_them() -> Any:
            there = [one["number"] for one in await go.do("heard") if one["number"] in numbers]
            here = [event.number for _, event, _ in heard if event.number in numbers]
            return (here, there) if len(here) + len(there) >= len(numbers) else None

        here, there = await until(all_of_them)
        assert sorted(here + there) == list(numbers)
        assert here
        assert there


if __name__ == "__main__":
    # A process of its own: this one has imported pytest's plugins before pytest could.
    paths = f"pythonpath={Path(__file__).parent}"
    command = (sys.executable, "-m", "pytest", __file__, "-vv", "--no-header", "-o", paths, *sys.argv[1:])
    sys.exit(subprocess.run(command, check=False).returncode)
