"""A rolling restart, found through each registry that is a server: no call fails, whatever its method does."""

import asyncio
import os
import signal
import sys
import textwrap

import pytest

from ketch import Client
from ketch.errors import StatusError
from ketch.rpc import Method, Stub
from ketch.testing.servers import etcd_server, nats_server, redis_server

SERVICE = """
import asyncio, sys
from ketch import Service
from ketch.rpc import Method, Servicer

PUT = Method("rolling.Store", "Put", str, str)

class Store(Servicer):
    contract = "rolling.Store"
    methods = {"put": PUT}

    async def put(self, text: str) -> str:
        await asyncio.sleep(0.005)
        return text

service = Service("rolling")
service.serve(Store())
service.run()
"""
PUT = Method("rolling.Store", "Put", str, str)
SERVERS = {"etcd": etcd_server, "nats": lambda: nats_server(jetstream=True), "redis": redis_server}


class StoreStub(Stub):
    contract = "rolling.Store"

    def put(self, text):
        return self._unary(PUT, text, 10.0, None)


@pytest.fixture(params=sorted(SERVERS))
async def registry(request):
    try:
        async with SERVERS[request.param]() as server:
            yield f"{request.param}://{server.url.partition('://')[2]}"
    except RuntimeError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.fixture
async def start(tmp_path, registry):
    (tmp_path / "service.py").write_text(textwrap.dedent(SERVICE))
    running = []

    async def start():
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(tmp_path / "service.py"),
            f"--registry={registry}",
            "--broker=memory",
            env={"PATH": os.environ["PATH"]},
            stderr=asyncio.subprocess.DEVNULL,
        )
        running.append(process)
        return process

    yield start
    for process in running:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def known(client, number, but=()):
    """Wait until so many instances are known, none of them among some; return their ids."""
    async with asyncio.timeout(30):
        while True:
            ids = {one.instance.id for one in client.candidates("rolling")}
            if len(ids) == number and not ids & set(but):
                return ids
            await asyncio.sleep(0.02)


@pytest.mark.timeout(120)
async def test_no_call_fails_while_all_instances_are_replaced_one_by_one(registry, start):
    processes = [await start() for _ in range(3)]
    async with Client.from_env(environ={}, registry=registry) as client:
        await client.ready("rolling", timeout=30)
        first = await known(client, 3)
        stub, failed, made, done = client.stub(StoreStub, "rolling"), [], 0, asyncio.Event()

        async def call():
            nonlocal made
            while not done.is_set():
                try:
                    assert await stub.put("x") == "x"
                except StatusError as error:
                    failed.append(repr(error))
                made += 1

        calling = [asyncio.create_task(call()) for _ in range(8)]
        for old in processes:
            await start()
            await known(client, 4)
            old.send_signal(signal.SIGTERM)
            assert await old.wait() == 0
            await known(client, 3)
        done.set()
        await asyncio.gather(*calling)
        assert not failed, failed[:5]
        assert made > 100
        assert not first & await known(client, 3, but=first)
