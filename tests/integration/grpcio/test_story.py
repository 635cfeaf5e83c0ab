"""The story of docs/migrating-from-grpcio.md, with the code that is written there."""

import asyncio
import contextlib
import importlib
import re
import socket
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import grpc.aio
import pytest

PAGE = Path(__file__).parents[3] / "docs" / "migrating-from-grpcio.md"
WORLD = f"memory://story-{uuid4()}"  # one for all, since a service reads its settings once
SAID = ["Hello Ada", "Hello Grace", "Hello Joan", "INVALID_ARGUMENT who are you?"]


def blocks():
    """Return the page's files, by name."""
    found = re.findall(r"```(?:python|proto)\n(?:#|//) (\S+)\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return dict(found)


@pytest.fixture(scope="module")
def port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


@pytest.fixture(scope="module")
def story(tmp_path_factory, generate, port):
    """Import the page's modules by name, on a port of our own."""
    folder = tmp_path_factory.mktemp("story")
    for name, text in blocks().items():
        (folder / name).write_text(text.replace("50051", str(port)))
    generate(folder, "greeter.proto")
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    yield importlib.import_module
    sys.path.remove(str(folder))
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "").parent == folder:
            del sys.modules[name]


@pytest.fixture(autouse=True)
def world(monkeypatch):
    """Keep to this process."""
    monkeypatch.setenv("MICRO_REGISTRY", WORLD)
    monkeypatch.setenv("MICRO_BROKER", "memory")
    monkeypatch.setattr(sys, "argv", ["story"])


@contextlib.asynccontextmanager
async def running(module, port):
    """Run a server of the page."""
    if hasattr(module, "service"):
        async with module.service:
            yield
        return
    server = asyncio.create_task(module.main())
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        await channel.channel_ready()
    yield
    server.cancel()
    await asyncio.gather(server, return_exceptions=True)


@pytest.mark.parametrize(
    ("server", "client"),
    [
        ("server_1", "client_1"),
        ("server_2", "client_1"),
        ("server_2", "client_3"),
        ("server_2", "client_4"),
        ("server_4", "client_1"),
        ("server_4", "client_3"),
        ("server_4", "client_4"),
    ],
)
async def test_each_step_of_the_way_says_the_same(story, port, capsys, server, client):
    async with running(story(server), port):
        await story(client).main()
    assert capsys.readouterr().out.splitlines() == SAID


async def test_the_middleware_of_the_page_times_a_hosted_call(story, capsys, sides, generated):
    def add(server):
        story("greeter_pb2_grpc").add_GreeterServicer_to_server(story("greeter").Greeter(), server)

    timed = story("middleware").timed
    async with sides[0]["ketch"](add, middleware=[timed]) as address, grpc.aio.insecure_channel(address) as channel:
        await story("greeter_pb2_grpc").GreeterStub(channel).Hello(story("greeter_pb2").HelloRequest(name="Ada"))
    assert re.fullmatch(r"serve /greeter\.v1\.Greeter/Hello: 0\.\d{3} s\n", capsys.readouterr().out)


def test_without_grpcio_the_extra_is_named(tmp_path):
    (tmp_path / "grpc.py").write_text("raise ImportError('no grpcio here')")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import ketch; import ketch.grpcio"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'ketch[grpcio]'" in done.stderr
