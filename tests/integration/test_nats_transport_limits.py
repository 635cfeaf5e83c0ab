"""What one caller or one large answer does over NATS stays with its own call."""

import asyncio

import nats
import pytest

from ketch.codec import PROTOBUF
from ketch.context import ReplyMetadata
from ketch.errors import AddressUnavailable, Internal, NotFound, ResourceExhausted, TransportError, Unknown
from ketch.testing.servers import nats_server
from ketch.transport import Route
from ketch.transports.nats import NatsTransport
from ketch.transports.nats.words import cancels
from ketch.url import Url

pytestmark = pytest.mark.xdist_group("nats-transport")

METHOD = "/a.Store/Who"
HUGE = 2 << 20


class Served:
    """A listener and a channel to it, each with a connection of its own."""

    def __init__(self):
        self.seen = []
        self.failure = None
        self.trailers = {}

    async def handle(self, request):
        self.seen.append(request)
        if request.body == b"fail":
            raise self.failure
        request.trailers.update(self.trailers)
        return b"reply"

    async def call(self, body=b"", **options):
        return await self.channel.unary(METHOD, body, content_type=PROTOBUF, **{"timeout": 10.0, **options})

    async def still_there(self):
        self.trailers = {}
        assert await self.call() == b"reply"


@pytest.fixture
async def server():
    async with nats_server() as server:
        yield server


@pytest.fixture
def options():
    return ""


@pytest.fixture
async def served(server, options):
    made = Served()
    async with (
        NatsTransport.from_url(Url.parse(server.url + options)) as serving,
        NatsTransport.from_url(Url.parse(server.url)) as calling,
    ):
        listener = made.listener = await serving.listen("127.0.0.1:0", {METHOD: Route(unary=made.handle)})
        made.address = listener.address
        made.channel = calling.connect(listener.address)
        yield made
        await made.channel.close()
        await listener.stop(0)


async def test_one_callers_credentials_are_never_anothers(server, served):
    """Whatever the order in which a plain client writes its headers."""
    plain = await nats.connect(server.url)
    common = {"ketch-method": METHOD, "content-type": PROTOBUF, "ketch-timeout": "5000"}
    await plain.request(served.address, b"", headers={**common, "authorization": "Bearer one"}, timeout=10)
    await plain.request(served.address, b"", headers={**common, "authorization": "Bearer two"}, timeout=10)
    await served.call()
    await plain.close()
    said = [request.metadata.get("authorization") for request in served.seen]
    assert said == ["Bearer one", "Bearer two", None]
    assert all(request.deadline is not None for request in served.seen)


async def test_a_method_is_the_requests_own_whatever_follows_its_timeout(server, served):
    plain = await nats.connect(server.url)
    headers = {"ketch-timeout": "5000", "ketch-method": METHOD}
    assert (await plain.request(served.address, b"", headers=headers, timeout=10)).data == b"reply"
    headers = {"ketch-timeout": "5000", "ketch-method": "/a.Store/Other"}
    assert (await plain.request(served.address, b"", headers=headers, timeout=10)).headers["ketch-status"] == "12"
    await plain.close()


async def test_details_larger_than_nats_takes_fail_their_own_call_only(served):
    served.failure = NotFound("no", details=[bytes(HUGE)])
    with pytest.raises(ResourceExhausted, match="details"):
        await served.call(b"fail")
    await served.still_there()


async def test_trailers_larger_than_nats_takes_fail_their_own_call_only(served):
    served.trailers = {"x-large": "x" * HUGE}
    with pytest.raises(ResourceExhausted):
        await served.call()
    await served.still_there()


async def test_metadata_larger_than_nats_takes_is_refused_before_it_is_sent(served):
    with pytest.raises(ResourceExhausted, match="metadata"):
        await served.call(metadata={"x-large": "x" * HUGE})
    assert served.seen == []
    await served.still_there()


async def test_metadata_in_the_transports_own_names_is_refused(served):
    with pytest.raises(Internal, match="ketch-"):
        await served.call(metadata={"ketch-pipe": "1"})
    await served.still_there()


async def test_several_binary_values_of_one_name_cross(served):
    served.trailers = {"x-last-bin": "AAEC,AwQF"}
    received = ReplyMetadata()
    await served.call(metadata={"x-first-bin": "AAEC,AwQF"}, received=received)
    assert served.seen[0].metadata["x-first-bin"] == "AAEC,AwQF"
    assert received.trailers["x-last-bin"] == "AAEC,AwQF"


@pytest.mark.parametrize("options", ["?max_message_size=1000"])
async def test_a_server_accepts_no_larger_request_than_it_was_told_to(served):
    with pytest.raises(ResourceExhausted, match="1000"):
        await served.call(bytes(1001))
    assert served.seen == []
    assert await served.call(bytes(1000)) == b"reply"


async def test_a_status_that_grpc_doesnt_know_is_unknown(server, served):
    plain = await nats.connect(server.url)

    async def answer(message):
        await plain.publish(message.reply, b"", headers={"ketch-status": "99"})

    await plain.subscribe("ketch-rpc.odd", cb=answer)
    await plain.flush()
    async with NatsTransport.from_url(Url.parse(server.url)) as transport:
        channel = transport.connect("ketch-rpc.odd")
        with pytest.raises(Unknown):
            await channel.unary(METHOD, b"", content_type=PROTOBUF, timeout=10)
        await channel.close()
    await plain.close()


async def test_a_subject_that_nats_doesnt_let_us_listen_on_is_said_and_not_left_deaf():
    config = """
    authorization { users = [ { user: a, password: geheim, permissions: {
      publish: ">", subscribe: { allow: ["ketch-inbox.>", "ketch-cancel.>", "_INBOX.>"] } } } ] }
    """
    async with nats_server(config=config) as server:
        url = Url.parse(server.url.replace("nats://", "nats://a:geheim@"))
        async with NatsTransport.from_url(url) as transport:
            with pytest.raises(AddressUnavailable, match="permission") as caught:
                await transport.listen_for("store", "127.0.0.1:0", {})
            assert "geheim" not in str(caught.value)


async def test_the_permissions_that_the_documentation_names_suffice():
    """For calls, streams, and what is given up: those of `docs/transports.md`."""
    config = """
    authorization { users = [
      { user: s, password: s, permissions: { publish: "ketch-inbox.>", subscribe: ["ketch-rpc.store",
        "ketch-instance.>", "ketch-cancel.rpc.store", "ketch-cancel.instance.>", "ketch-inbox.>"] } },
      { user: c, password: c, permissions: { subscribe: "ketch-inbox.>", publish: ["ketch-rpc.store",
        "ketch-instance.>", "ketch-cancel.>", "ketch-inbox.>"] } } ] }
    """
    given_up, started = asyncio.Event(), asyncio.Event()

    async def unary(request):
        if request.body != b"wait":
            return b"reply"
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            given_up.set()

    async def stream(request, stream):
        await stream.send(await stream.receive())

    async with (
        nats_server(config=config) as server,
        NatsTransport.from_url(Url.parse(server.url.replace("//", "//s:s@"))) as serving,
        NatsTransport.from_url(Url.parse(server.url.replace("//", "//c:c@"))) as calling,
    ):
        routes = {METHOD: Route(unary=unary), "/a.Store/Chat": Route(stream=stream)}
        listener = await serving.listen_for("store", "127.0.0.1:0", routes)
        channel = calling.connect(listener.address)
        assert await channel.unary(METHOD, b"", content_type=PROTOBUF, timeout=10) == b"reply"
        chat = await channel.stream("/a.Store/Chat", content_type=PROTOBUF, timeout=10)
        await chat.send(b"a")
        assert await chat.receive() == b"a"
        assert await chat.receive() is None
        waiting = asyncio.create_task(channel.unary(METHOD, b"wait", content_type=PROTOBUF, timeout=30))
        await asyncio.wait_for(started.wait(), 10)
        waiting.cancel()
        await asyncio.wait_for(given_up.wait(), 10)
        await channel.close()
        await listener.stop(0)


async def test_a_server_that_takes_too_little_in_a_message_is_said_at_start():
    async with nats_server(config="max_payload: 4096") as server:
        with pytest.raises(TransportError, match="max_payload"):
            async with NatsTransport.from_url(Url.parse(server.url)):
                pass


async def test_a_call_that_is_given_up_before_its_handler_began_leaves_nothing_behind(server, served):
    """As when an instance was frozen: requests and their cancellations are read in one go."""
    plain = await nats.connect(server.url)
    answers = asyncio.Queue()
    inbox = plain.new_inbox()
    await plain.subscribe(f"{inbox}.*", cb=answers.put)
    headers = {"ketch-method": METHOD, "content-type": PROTOBUF, "ketch-timeout": "60000"}
    for number in range(100):
        await plain.publish(served.address, b"", reply=f"{inbox}.{number}", headers=headers)
        await plain.publish(cancels(served.address), f"{inbox}.{number}".encode())
    async with asyncio.timeout(10):
        for _ in range(100):
            await answers.get()
    await served.still_there()
    assert not served.listener._answering.calls
    await plain.close()
