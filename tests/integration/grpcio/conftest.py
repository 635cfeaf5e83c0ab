"""A contract, generated with grpcio's tools and with ours at test time, and what serves and calls it."""

import importlib
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio
import pytest
from grpc_tools import protoc

from ketch import Service, grpcio

CONTRACT = """
syntax = "proto3";
package grpcio_fit.v1;
message Text { string text = 1; }
service Echo {
  rpc Say(Text) returns (Text);
  rpc Count(Text) returns (stream Text);
  rpc Join(stream Text) returns (Text);
  rpc Chat(stream Text) returns (stream Text);
}
"""


def _generate(folder, name):
    plugin = Path(sys.executable).with_name("protoc-gen-ketch")
    arguments = [f"--proto_path={folder}", f"--python_out={folder}", f"--grpc_python_out={folder}"]
    arguments += [f"--plugin=protoc-gen-ketch={plugin}", f"--ketch_out={folder}", str(folder / name)]
    assert protoc.main(["protoc", *arguments]) == 0


class Generated:
    """The modules made of a .proto file."""

    def __init__(self, stem):
        self.pb2 = importlib.import_module(f"{stem}_pb2")
        self.grpc = importlib.import_module(f"{stem}_pb2_grpc")
        self.ketch = importlib.import_module(f"{stem}_ketch")


@pytest.fixture(scope="session")
def generated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generated")
    (folder / "grpcio_fit.proto").write_text(CONTRACT)
    _generate(folder, "grpcio_fit.proto")
    sys.path.insert(0, str(folder))
    yield Generated("grpcio_fit")
    sys.path.remove(str(folder))


@pytest.fixture(scope="session")
def generate():
    """What makes modules of a .proto file, with grpcio's tools and with ours."""
    return _generate


@asynccontextmanager
async def on_stock(add, **options):
    """Serve on grpc.aio's server; yield its address."""
    server = grpc.aio.server(**options)
    add(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


@asynccontextmanager
async def on_ketch(add, *, middleware=(), transport="grpc", **options):
    """Serve on ketch; yield the address."""
    pinned = {"registry": "memory", "broker": "memory", "transport": transport, "address": "127.0.0.1:0", "grace": 1}
    service = Service("fit", middleware=middleware, **pinned)
    add(grpcio.server(service, **options))
    async with service:
        yield service.address


SERVE = {"stock": on_stock, "ketch": on_ketch}
CONNECT = {"stock": grpc.aio.insecure_channel, "ketch": grpcio.channel}


@pytest.fixture
def sides():
    """How to serve, and how to connect, by whose side it is."""
    return SERVE, CONNECT
