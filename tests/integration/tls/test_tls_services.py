"""Services, events and commands over TLS, as the settings ask for it."""

import asyncio
import os
import shutil
import subprocess
import sys
import textwrap
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from ketch import Client, Service, Topic, Unavailable, context, settings
from ketch.broker import Site
from ketch.brokers.direct import DirectBroker
from ketch.errors import BrokerError, ConfigurationError
from ketch.message import Message
from ketch.options import build
from ketch.registries.memory import MemoryRegistry
from ketch.rpc import Method, Servicer, Stub
from ketch.tls import ClientTls, ServerTls, Tls
from ketch.transports.grpc import GrpcTransport
from ketch.transports.memory import MemoryTransport
from ketch.url import Url


@dataclass
class Word:
    text: str


_WHO = Method("who.Who", "Am", Word, Word)
words = Topic("words", Word)


class Who(Servicer):
    contract = "who.Who"
    methods: ClassVar = {"am": _WHO}

    @abstractmethod
    async def am(self, request: Word, /) -> Word: ...


class WhoStub(Stub):
    contract = "who.Who"

    def am(self, request, /, *, timeout=None, metadata=None):
        return self._unary(_WHO, request, timeout, metadata)


class Mirror(Who):
    """Tells callers who they are."""

    async def am(self, request):
        current = context.current()
        identity = current.peer_identity
        assert current.peer.startswith("127.0.0.1:")
        assert current.peer_identity is identity
        return Word("nobody" if identity is None else f"{identity.common_name} {identity.names}")


@pytest.fixture
def environ(authority, tmp_path):
    """The settings of a program that does mutual TLS on both sides."""
    cert, key = authority.issue("program", "127.0.0.1", "users.example", common_name="users")
    return {
        "MICRO_SERVER_TLS_CERT": cert,
        "MICRO_SERVER_TLS_KEY": key,
        "MICRO_SERVER_TLS_CLIENT_CA": authority.root,
        "MICRO_CLIENT_TLS_CA": authority.root,
        "MICRO_CLIENT_TLS_CERT": cert,
        "MICRO_CLIENT_TLS_KEY": key,
        "XDG_RUNTIME_DIR": str(tmp_path),
        "PATH": os.environ["PATH"],
    }


def only(environ, *wanted):
    """Return the environment with no TLS settings but those wanted."""
    return {name: value for name, value in environ.items() if "TLS" not in name or name in wanted}


SERVER = "MICRO_SERVER_TLS_CERT", "MICRO_SERVER_TLS_KEY"
CLIENT = ("MICRO_CLIENT_TLS_CA",)


# Calls


async def test_a_handler_knows_who_calls(environ):
    service = Service("who")
    service.serve(Mirror())
    service.init((), environ)
    async with service, Client.from_env(environ=environ) as client:
        reply = await client.stub(WhoStub).am(Word(""))
    assert reply.text == "users (('IP Address', '127.0.0.1'), ('DNS', 'users.example'))"


async def test_a_caller_that_need_not_say_who_it_is_is_nobody(environ):
    service = Service("who")
    service.serve(Mirror())
    service.init((), only(environ, *SERVER))
    async with service, Client.from_env(environ=only(environ, *CLIENT)) as client:
        assert await client.stub(WhoStub).am(Word("")) == Word("nobody")
    assert context.current().peer_identity is None


async def test_a_client_without_the_settings_is_refused(environ):
    service = Service("who")
    service.serve(Mirror())
    service.init((), environ)
    async with service, Client.from_env(environ=only(environ)) as client:
        with pytest.raises(Unavailable, match="if it speaks TLS, set client_tls_ca"):
            await client.stub(WhoStub).am(Word(""))


# Events


@pytest.fixture
async def world():
    async with MemoryRegistry.from_url(Url("memory", "tls-events")) as registry:
        yield registry


async def open_direct(registry, tls):
    transport = GrpcTransport(tls=tls)
    await transport.open()
    broker = DirectBroker()
    await broker.open(Site("test", "test", registry, transport))
    return broker


def message(text):
    return Message(topic="words", headers={}, body=text)


async def test_events_travel_over_tls_between_processes(environ, authority, world, caplog):
    """Nobody without a certificate gets one in, so the one that came had one."""
    cert, key = environ["MICRO_SERVER_TLS_CERT"], environ["MICRO_SERVER_TLS_KEY"]
    tls = Tls(ServerTls(cert, key, authority.root), ClientTls(authority.root, cert, key))
    publisher, subscriber, plain = [await open_direct(world, t) for t in (tls, tls, Tls())]
    subscription = await subscriber.subscribe("words", group=None)
    await plain.publish(message(b"in plain text"))
    await publisher.publish(message(b"over TLS"))
    taken = await subscription.receive()
    assert [delivery.message.body for delivery in taken] == [b"over TLS"]
    await asyncio.gather(plain.close(), publisher.close(), subscriber.close())
    assert "it speaks plain text; this port speaks TLS only" in caplog.text
    assert "1 events could not be delivered before the end" in caplog.text


async def test_events_neither_leave_nor_come_in_plain_text_where_one_side_has_tls(environ, authority, world):
    cert, key = environ["MICRO_SERVER_TLS_CERT"], environ["MICRO_SERVER_TLS_KEY"]
    serving = await open_direct(world, Tls(server=ServerTls(cert, key)))
    with pytest.raises(BrokerError, match="words would leave in plain text: with server_tls_cert set client_tls_ca"):
        await serving.publish(message(b"x"))
    calling = await open_direct(world, Tls(client=ClientTls(authority.root)))
    with pytest.raises(BrokerError, match="words would come in plain text: with client_tls_ca set server_tls_cert"):
        await calling.subscribe("words", group=None)
    subscription = await serving.subscribe("words", group=None)
    await calling.publish(message(b"one way"))
    assert [delivery.message.body for delivery in await subscription.receive()] == [b"one way"]
    await calling.close()
    await serving.close()


# Settings


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (["MICRO_SERVER_TLS_CERT"], "server_tls_cert needs server_tls_key"),
        (["MICRO_SERVER_TLS_KEY"], "server_tls_key needs server_tls_cert"),
        (["MICRO_SERVER_TLS_CLIENT_CA"], "server_tls_client_ca needs server_tls_cert"),
        (["MICRO_CLIENT_TLS_CERT", "MICRO_CLIENT_TLS_KEY"], "client_tls_cert needs client_tls_ca"),
        (["MICRO_CLIENT_TLS_CA", "MICRO_CLIENT_TLS_CERT"], "client_tls_cert needs client_tls_key"),
    ],
)
def test_half_a_configuration_is_an_error(environ, wanted, said):
    with pytest.raises(ConfigurationError, match=said):
        build(settings.read((), only(environ, *wanted)), {})


def test_a_name_to_verify_without_roots_is_an_error():
    with pytest.raises(ConfigurationError, match="client_tls_server_name needs client_tls_ca"):
        build(settings.read(["--client-tls-server-name", "x"], {}), {})


def test_a_misspelt_setting_is_answered_with_the_right_one():
    with pytest.raises(ConfigurationError, match="did you mean MICRO_SERVER_TLS_CERT"):
        settings.read((), {"MICRO_SERVER_TLS_CRT": "x"})


def test_a_transport_that_cannot_encrypt_is_refused(environ):
    with pytest.raises(ConfigurationError, match="transport memory can't encrypt, but the settings ask for mutual TLS"):
        build(settings.read((), environ), {"transport": "memory"})
    with pytest.raises(ConfigurationError, match="transport memory can't encrypt"):
        build(settings.read((), environ), {"transport": MemoryTransport()})


def test_the_transports_url_may_say_the_same_but_nothing_else(environ):
    cert, key = environ["MICRO_SERVER_TLS_CERT"], environ["MICRO_SERVER_TLS_KEY"]
    url = f"grpc://?server_tls_cert={cert}&server_tls_key={key}"
    assert build(settings.read(["--transport", url], {}), {}).transport.tls == Tls(server=ServerTls(cert, key))
    same = build(settings.read((), only(environ, *SERVER, *CLIENT)), {"transport": url}).transport.tls
    assert same.server == ServerTls(cert, key)
    assert same.client == ClientTls(environ["MICRO_CLIENT_TLS_CA"])
    with pytest.raises(ConfigurationError, match="transport grpc has two sets of server_tls_… options"):
        build(settings.read((), environ), {"transport": url})
    with pytest.raises(ConfigurationError, match="server_tls_cert needs server_tls_key"):
        build(settings.read(["--transport", f"grpc://?server_tls_cert={cert}"], {}), {})


# Programs


PROGRAM = """
    from dataclasses import dataclass
    from ketch import Service, Topic

    @dataclass
    class Word:
        text: str

    service = Service("listener")

    @service.subscribe(Topic("words", Word))
    async def hear(word: Word) -> None:
        print("heard", word.text, flush=True)

    service.run()
"""


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(textwrap.dedent(PROGRAM))
    return [sys.executable, str(path)]


def ketch(environ, *args):
    done = subprocess.run(
        [sys.executable, "-m", "ketch", *args], env=environ, capture_output=True, text=True, timeout=30, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_a_service_says_at_start_that_tls_is_on_and_commands_use_the_same_settings(program, environ):
    with subprocess.Popen(program, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            up = next(line for line in process.stdout if " is up: " in line)
            assert "transport grpc (mutual TLS in, mutual TLS out) at 127.0.0.1:" in up
            assert ketch(environ, "publish", "words", '{"text": "hello"}')[0] == 0
            assert "heard hello" in next(line for line in process.stdout if "heard" in line)
            code, output = ketch(only(environ, *SERVER), "publish", "words", '{"text": "hello"}')
            assert (code, "would leave in plain text" in output) == (1, True)
            code, output = ketch(only(environ, *CLIENT), "tail", "words")
            assert (code, "would come in plain text" in output) == (1, True)
        finally:
            process.terminate()
            process.communicate(timeout=20)
    assert process.returncode == 0


@pytest.fixture
def pasted(tmp_path):
    """What a shell has in its environment after the page's commands."""
    if shutil.which("openssl") is None:
        pytest.skip("the page's commands are openssl's")
    page = (Path(__file__).parents[3] / "docs" / "tls.md").read_text()
    blocks = [block.partition("```")[0] for block in page.split("```sh\n")[1:]]
    made = subprocess.run(
        ["bash", "-e"], input="\n".join(blocks) + "env", cwd=tmp_path, capture_output=True, text=True, check=True
    )
    lines = [line.partition("=") for line in made.stdout.splitlines()]
    environ = {name: value for name, _, value in lines if name.startswith("MICRO_")}
    assert len(environ) == 6
    return environ | {"XDG_RUNTIME_DIR": str(tmp_path)}


async def test_the_commands_of_the_page_make_what_mutual_tls_takes(pasted):
    service = Service("who")
    service.serve(Mirror())
    service.init((), pasted)
    async with service, Client.from_env(environ=pasted) as client:
        assert (await client.stub(WhoStub).am(Word(""))).text.startswith("shop ")


def test_a_service_whose_key_is_missing_does_not_start(program, environ):
    Path(environ["MICRO_SERVER_TLS_KEY"]).unlink()
    done = subprocess.run(program, env=environ, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2
    assert "server_tls_key: " in done.stderr
    assert "can't be read: No such file" in done.stderr
    assert "Traceback" not in done.stderr
    code, output = ketch(environ, "call", "--service", "listener", "who.Who/Am", "{}")
    assert code == 2
    assert "can't be read: No such file" in output
