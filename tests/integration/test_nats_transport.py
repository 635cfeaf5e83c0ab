"""Calls over NATS as services make them: shared among instances, through losses, and seen by a plain client."""

import asyncio
import os
import signal
import sys
import textwrap
from collections import Counter
from typing import ClassVar

import nats
import pytest

from ketch import Client, NotFound, Service, Topic
from ketch.errors import TransportError, Unavailable, Unreachable
from ketch.rpc import Cardinality, Method, Servicer, Stub
from ketch.testing.servers import nats_server
from ketch.transports.nats.words import token

pytestmark = pytest.mark.xdist_group("nats-transport")

WHO = Method("a.Store", "Who", str, str, idempotent=True)
COUNT = Method("a.Store", "Count", str, str, Cardinality.SERVER_STREAM)


class StoreStub(Stub):
    contract = "a.Store"

    def who(self, text, timeout=10.0):
        return self._unary(WHO, text, timeout, None)

    def count(self, text, timeout=None):
        return self._server_stream(COUNT, text, timeout, None)


class Store(Servicer):
    contract = "a.Store"
    methods: ClassVar = {"who": WHO, "count": COUNT}

    def __init__(self, name):
        self.name = name
        self.hold = asyncio.Event()

    async def who(self, text: str) -> str:
        if text == "nobody":
            raise NotFound("no such text")
        return text if len(text) > 100 else self.name

    async def count(self, text: str):
        yield self.name
        await self.hold.wait()


PROGRAM = """
import asyncio, sys
from ketch import Service
from ketch.rpc import Cardinality, Method, Servicer

WHO = Method("a.Store", "Who", str, str, idempotent=True)
COUNT = Method("a.Store", "Count", str, str, Cardinality.SERVER_STREAM)

class Store(Servicer):
    contract = "a.Store"
    methods = {"who": WHO, "count": COUNT}
    async def who(self, text: str) -> str:
        return sys.argv[1]
    async def count(self, text: str):
        yield sys.argv[1]
        await asyncio.Event().wait()

service = Service("store")
service.serve(Store())
service.run(sys.argv[2:])
"""


@pytest.fixture
async def server():
    async with nats_server() as server:
        yield server


@pytest.fixture
def common(server, tmp_path):
    return {"registry": f"local://{tmp_path}/registry", "broker": "memory", "transport": server.url}


def service(name, common, **options):
    made = Service("store", **common, **options)
    made.serve(Store(name))
    made.init([], {})
    return made


class Programs:
    """Instances that are processes, to be killed."""

    def __init__(self, folder, common):
        self.folder = folder
        self.flags = [f"--{name}={value}" for name, value in common.items()]
        self.processes = {}
        (folder / "store.py").write_text(textwrap.dedent(PROGRAM))

    async def start(self, name):
        self.processes[name] = await asyncio.create_subprocess_exec(
            sys.executable,
            str(self.folder / "store.py"),
            name,
            *self.flags,
            env={"PATH": os.environ["PATH"]},
            stderr=asyncio.subprocess.DEVNULL,
        )

    async def kill(self, name):
        process = self.processes.pop(name)
        process.kill()
        await process.wait()


@pytest.fixture
async def programs(tmp_path, common):
    made = Programs(tmp_path, common)
    yield made
    for name in list(made.processes):
        made.processes[name].send_signal(signal.SIGCONT)
        await made.kill(name)


async def until_known(client, number):
    await client.ready("store", 20)
    async with asyncio.timeout(20):
        while len(client.candidates("store")) < number:  # noqa: ASYNC110 - a test's wait
            await asyncio.sleep(0.02)


async def test_nats_shares_calls_among_the_instances_of_a_service(common):
    async with service("a", common), service("b", common), Client.from_env(environ={}, **common) as client:
        assert {instance.instance.address for instance in client.candidates("store")} == set()
        stub = client.stub(StoreStub)
        counts = Counter([await stub.who("x") for _ in range(60)])
        assert set(counts) == {"a", "b"}
        assert {one.instance.address for one in client.candidates("a.Store")} == {"ketch-rpc.store"}
        with pytest.raises(NotFound, match="no such text"):
            await stub.who("nobody")


async def test_instances_may_be_called_each_by_its_own_subject(common):
    common = {**common, "transport": common["transport"] + "?address=instance"}
    async with service("a", common), service("b", common), Client.from_env(environ={}, **common) as client:
        stub = client.stub(StoreStub)
        await stub.who("x")
        async with asyncio.timeout(10):
            while len(client.candidates("a.Store")) < 2:  # noqa: ASYNC110 - a test's wait
                await asyncio.sleep(0.01)
        assert len({one.instance.address for one in client.candidates("a.Store")}) == 2
        assert {await stub.who("x") for _ in range(40)} == {"a", "b"}


async def test_no_idempotent_call_fails_when_one_of_two_instances_is_killed(programs, common):
    await programs.start("a")
    await programs.start("b")
    async with Client.from_env(environ={}, **common) as client:
        await until_known(client, 2)
        stub = client.stub(StoreStub, "store")
        answers = []

        async def call():
            for _ in range(200):
                answers.append(await stub.who("x"))
                await asyncio.sleep(0.001)

        calling = [asyncio.create_task(call()) for _ in range(8)]
        async with asyncio.timeout(20):
            while set(answers) < {"a", "b"}:  # noqa: ASYNC110 - a test's wait
                await asyncio.sleep(0.01)
        await programs.kill("a")
        await asyncio.gather(*calling)
        assert len(answers) == 1600
        assert answers[-1] == "b"


async def test_no_call_fails_when_one_of_two_instances_stops(common):
    answers = []

    async def call(stub):
        for _ in range(150):
            answers.append(await stub.who("x"))
            await asyncio.sleep(0.001)

    async with service("b", common), Client.from_env(environ={}, **common) as client:
        stub = client.stub(StoreStub)
        async with service("a", common):
            calling = [asyncio.create_task(call(stub)) for _ in range(8)]
            async with asyncio.timeout(20):
                while set(answers) < {"a", "b"}:  # noqa: ASYNC110 - a test's wait
                    await asyncio.sleep(0.01)
        await asyncio.gather(*calling)
    assert len(answers) == 1200
    assert answers[-1] == "b"


async def test_a_frozen_instance_is_left_out_where_each_has_its_own_subject(programs, common):
    common = {**common, "transport": common["transport"] + "?address=instance"}
    programs.flags[-1] = f"--transport={common['transport']}"
    await programs.start("a")
    await programs.start("b")
    async with Client.from_env(environ={}, **common) as client:
        await until_known(client, 2)
        stub = client.stub(StoreStub, "store")
        async with asyncio.timeout(20):
            while {await stub.who("x") for _ in range(20)} < {"a", "b"}:
                pass
        programs.processes["a"].send_signal(signal.SIGSTOP)
        assert {await stub.who("x") for _ in range(60)} == {"b"}


async def test_a_stream_whose_server_is_killed_ends(programs, common):
    await programs.start("a")
    quick = {**common, "transport": common["transport"] + "?keepalive=0.2&keepalive_timeout=0.5"}
    async with Client.from_env(environ={}, **quick) as client:
        await until_known(client, 1)
        stream = client.stub(StoreStub, "store").count("x")
        assert await anext(stream) == "a"
        await programs.kill("a")
        with pytest.raises(Unavailable):
            await asyncio.wait_for(anext(stream), 20)


async def test_a_stream_whose_server_is_frozen_ends(programs, common):
    await programs.start("a")
    quick = {**common, "transport": common["transport"] + "?keepalive=0.2&keepalive_timeout=0.5"}
    async with Client.from_env(environ={}, **quick) as client:
        await until_known(client, 1)
        stream = client.stub(StoreStub, "store").count("x")
        assert await anext(stream) == "a"
        programs.processes["a"].send_signal(signal.SIGSTOP)
        with pytest.raises(Unavailable):
            await asyncio.wait_for(anext(stream), 20)


async def test_calls_go_on_when_nats_comes_back(server, common):
    async with service("a", common), Client.from_env(environ={}, **common) as client:
        stub = client.stub(StoreStub)
        assert await stub.who("x") == "a"
        stream = stub.count("x")
        assert await anext(stream) == "a"
        await server.kill()
        with pytest.raises(Unavailable):
            await asyncio.wait_for(anext(stream), 20)
        with pytest.raises(Unavailable):
            await stub.who("x", timeout=2)
        await server.start()
        async with asyncio.timeout(30):
            while True:
                try:
                    assert await stub.who("x", timeout=1) == "a"
                    break
                except Unavailable:
                    await asyncio.sleep(0.1)
        assert await anext(stub.count("x")) == "a"


async def test_what_is_larger_than_a_message_may_be_is_sent_in_pieces(common):
    text = "x" * (3 << 20)
    async with service("a", common), Client.from_env(environ={}, **common) as client:
        assert await client.stub(StoreStub).who(text) == text


async def test_nobody_listening_is_said_at_once(common):
    async with Client.from_env(environ={}, **{**common, "registry": "static://?store=ketch-rpc.store"}) as client:
        with pytest.raises(Unreachable, match="nobody"):
            await client.stub(StoreStub, "store").who("x", timeout=30)


async def test_a_plain_client_of_nats_can_call(server, common):
    async with service("a", common):
        plain = await nats.connect(server.url)
        headers = {"ketch-method": "/a.Store/Who", "content-type": "application/json"}
        reply = await plain.request("ketch-rpc.store", b'"x"', headers=headers, timeout=10)
        assert (reply.data, reply.headers) == (b'"a"', None)
        refused = await plain.request("ketch-rpc.store", b'"nobody"', headers=headers, timeout=10)
        assert (refused.headers["ketch-status"], refused.headers["ketch-message"]) == ("5", "no such text")
        unknown = await plain.request("ketch-rpc.store", b"", headers={"ketch-method": "/x/Y"}, timeout=10)
        assert unknown.headers["ketch-status"] == "12"
        await plain.close()


@pytest.mark.parametrize("body", [b"", b"\x00" * 100, b"\xff\xff\xff\xff", b"\x00\x00\x00\x09garbage"])
async def test_garbage_on_its_subjects_does_no_harm(server, common, body):
    async with service("a", common), Client.from_env(environ={}, **common) as client:
        stub = client.stub(StoreStub)
        stream = stub.count("x")
        assert await anext(stream) == "a"
        plain = await nats.connect(server.url)
        heard = []

        async def hear(message):
            heard.append(message.subject)

        await plain.subscribe("ketch-inbox.>", cb=hear)
        await plain.publish("ketch-rpc.store", body)
        await plain.publish("ketch-rpc.store", body, reply="nowhere")
        await plain.publish("ketch-rpc.store", body, reply="nowhere", headers={"ketch-pipe": "1"})
        await plain.publish("ketch-cancel.rpc.store", body)
        await plain.flush()
        for _ in range(5):
            assert await stub.who("x") == "a"
        for subject in set(heard):
            await plain.publish(subject, body)
        await plain.flush()
        assert await stub.who("x") == "a"
        await plain.close()


async def test_calls_and_events_share_a_server_though_a_stream_keeps_all_of_ketchs_own_events(tmp_path):
    """JetStream's stream for `ketch.dead` takes `ketch.>`: it must not answer calls."""
    async with nats_server(jetstream=True) as server:
        url = server.url.partition("://")[2]
        common = {"registry": f"nats://{url}", "broker": f"jetstream://{url}", "transport": f"nats://{url}"}
        made = service("a", common)

        @made.subscribe(Topic("ketch.test", dict), delivery="at-least-once")
        async def hear(event: dict) -> None:
            """Take it."""

        async with made, Client.from_env(environ={}, **common) as client:
            assert await client.stub(StoreStub).who("x") == "a"
            assert await anext(client.stub(StoreStub).count("x")) == "a"


async def test_an_absent_server_is_said_clearly(tmp_path):
    absent = Service(
        "store",
        registry=f"local://{tmp_path}/r",
        broker="memory",
        transport="nats://user:geheim@127.0.0.1:9?connect_timeout=0.5",
    )
    absent.init([], {})
    with pytest.raises(TransportError, match="is it running") as caught:
        async with absent:
            pass
    assert "geheim" not in str(caught.value)


async def test_names_of_services_never_meet():
    names = ["shop", "shop.v1", "shop v1", "shop%20v1", "shop*", "shop.>", "", ".", "größe", "a=b", "a.=b"]
    tokens = [token(name) for name in names]
    assert len(set(tokens)) == len(names)
    assert not any(set(one) & set(" *>\r\n\t") or ".." in one or one[:1] == "." or one[-1:] == "." for one in tokens)
