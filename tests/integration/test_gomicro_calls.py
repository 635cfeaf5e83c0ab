"""What a go-micro client does on a connection, and a ketch server's answers; interop/gomicro.py has the real one."""

import pytest
from google.protobuf.wrappers_pb2 import StringValue

from ketch import context
from ketch.codec import Codecs
from ketch.codecs.json import JsonCodec
from ketch.codecs.protobuf import ProtobufCodec
from ketch.errors import NotFound, Unimplemented
from ketch.rpc import Cardinality, Method, Servicer
from ketch.server import routes
from ketch.transports.grpc import GrpcTransport

PROTOBUF = "application/protobuf"
FROM_GO = {"x-content-type": "application/grpc+proto", "timeout": "9998593327"}


class Greeter(Servicer):
    contract = "shop.v1.Greeter"
    methods = {  # noqa: RUF012 - as generated code has it
        "hello": Method(contract, "Hello", StringValue, StringValue),
        "fail": Method(contract, "Fail", StringValue, StringValue),
        "count": Method(contract, "Count", StringValue, StringValue, Cardinality.SERVER_STREAM),
    }

    async def hello(self, request):
        return StringValue(value=f"{context.current().name} {request.value}")

    async def fail(self, request):
        raise NotFound(request.value)

    async def count(self, request):
        yield request


@pytest.fixture
async def channel():
    transport = GrpcTransport()
    served = routes(Greeter(), Codecs(ProtobufCodec(), JsonCodec()))
    listener = await transport.listen("127.0.0.1:0", served)
    channel = transport.connect(listener.address)
    yield channel
    await channel.close()
    await listener.stop(0)


async def call(channel, path, text, metadata=FROM_GO):
    body = StringValue(value=text).SerializeToString()
    reply = await channel.unary(path, body, content_type=PROTOBUF, metadata=metadata, timeout=10)
    return StringValue.FromString(reply).value


async def test_a_method_is_served_by_its_own_name_whatever_the_caller_calls_it(channel):
    """Rules that go by the method's name hold for every caller."""
    for _ in range(3):
        assert await call(channel, "/shop.Greeter/Hello", "Ada") == "/shop.v1.Greeter/Hello Ada"
    assert await call(channel, "/shop.v1.Greeter/Hello", "Ada") == "/shop.v1.Greeter/Hello Ada"


async def test_any_other_caller_has_to_name_it_in_full(channel):
    await call(channel, "/shop.Greeter/Hello", "Ada")
    with pytest.raises(Unimplemented):
        await call(channel, "/shop.Greeter/Hello", "Ada", {})


async def test_an_error_is_told_as_the_caller_understands_it(channel):
    with pytest.raises(NotFound) as theirs:
        await call(channel, "/shop.Greeter/Fail", "no user 7")
    assert (theirs.value.message, len(theirs.value.details)) == ("no user 7", 1)
    with pytest.raises(NotFound) as plain:
        await call(channel, "/shop.v1.Greeter/Fail", "no user 7", {})
    assert (plain.value.message, plain.value.details) == ("no user 7", ())


async def test_a_stream_of_replies_begins_though_its_caller_leaves_its_side_open(channel):
    """The client that go-micro generates sends the request and never ends its side."""
    stream = await channel.stream("/shop.Greeter/Count", content_type=PROTOBUF, metadata=FROM_GO, timeout=10)
    await stream.send(StringValue(value="one").SerializeToString())
    reply = await stream.receive()
    assert reply is not None
    assert StringValue.FromString(reply).value == "one"
    assert await stream.receive() is None
