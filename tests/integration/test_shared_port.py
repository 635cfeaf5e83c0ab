"""Several listeners on one socket, as workers have it: none loses what waits in it, and each gets its share."""

import asyncio
import socket

import pytest

from ketch.codec import PROTOBUF
from ketch.http2 import frames
from ketch.http2.frames import GOAWAY, PREFACE
from ketch.tls import Tls
from ketch.transport import Route
from ketch.transports.grpc import GrpcTransport

HELLO = PREFACE + frames.settings([])


@pytest.fixture(params=["tcp", "unix"])
def listening(request, tmp_path):
    """A socket that is bound and that nobody listens on yet."""
    family, place = (socket.AF_INET, ("127.0.0.1", 0)) if request.param == "tcp" else (socket.AF_UNIX, f"{tmp_path}/s")
    with socket.socket(family, socket.SOCK_STREAM) as bound:
        bound.bind(place)
        yield bound


def address_of(listening):
    name = listening.getsockname()
    return f"unix:{name}" if isinstance(name, str) else f"{name[0]}:{name[1]}"


def routes(name):
    async def who(_):
        return name

    return {"/t/Who": Route(unary=who)}


async def share(listening, name, transport=None):
    return await (transport or GrpcTransport()).share(listening.dup(), routes(name))


async def ask(address, transport=None):
    """Make one call over a connection of its own."""
    channel = (transport or GrpcTransport()).connect(address)
    try:
        return await channel.unary("/t/Who", b"", content_type=PROTOBUF, timeout=10)
    finally:
        await channel.close()


async def test_each_gets_its_share_of_connections_that_stay(listening):
    listeners = [await share(listening, b"%d" % number) for number in range(4)]
    transport = GrpcTransport()
    channels = [transport.connect(address_of(listening)) for _ in range(40)]
    answers = [await channel.unary("/t/Who", b"", content_type=PROTOBUF, timeout=10) for channel in channels]
    shares = [answers.count(b"%d" % number) for number in range(4)]
    assert min(shares) >= 4, shares
    assert max(shares) <= 20, shares
    for channel in channels:
        await channel.close()
    for listener in listeners:
        await listener.stop(5)


async def test_what_waits_to_be_accepted_is_left_to_the_others_when_one_stops(listening):
    first = await share(listening, b"first")
    assert await ask(address_of(listening)) == b"first"
    await first.stop(5)
    waiting = [asyncio.ensure_future(ask(address_of(listening))) for _ in range(8)]
    await asyncio.sleep(0)
    second = await share(listening, b"second")
    assert set(await asyncio.gather(*waiting)) == {b"second"}
    await second.stop(5)


async def test_a_client_that_was_accepted_and_has_not_spoken_is_greeted_before_it_is_sent_elsewhere(listening):
    listener = await share(listening, b"only")
    name = listening.getsockname()
    connect = asyncio.open_unix_connection(name) if isinstance(name, str) else asyncio.open_connection(*name)
    reader, writer = await connect
    while not listener._wires:  # noqa: ASYNC110 - nobody tells of it
        await asyncio.sleep(0.01)
    stopping = asyncio.ensure_future(listener.stop(5))
    await asyncio.sleep(0.05)
    writer.write(HELLO)
    kinds = []
    while GOAWAY not in kinds:
        high, low, kind, _, _ = frames.HEAD.unpack(await reader.readexactly(9))
        await reader.readexactly((high << 16) + low)
        kinds.append(kind)
    assert kinds[0] == frames.SETTINGS
    writer.close()
    await stopping


async def test_over_tls_too(listening, authority):
    certificate, key = authority.issue("server")
    transport = GrpcTransport(
        tls=Tls.read(
            {
                "server_tls_cert": certificate,
                "server_tls_key": key,
                "client_tls_ca": authority.root,
                "client_tls_server_name": "localhost",
            }
        )
    )
    await transport.open()
    first, second = await share(listening, b"x", transport), await share(listening, b"x", transport)
    assert await ask(address_of(listening), transport) == b"x"
    await first.stop(5)
    assert await ask(address_of(listening), transport) == b"x"
    await second.stop(5)
