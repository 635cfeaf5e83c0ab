"""RabbitMQ without a server: names, options, frames, acknowledgements."""

import asyncio
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands
from pamqp.exceptions import AMQPFrameError, AMQPNotFound
from pamqp.header import ContentHeader

from ketch.brokers.rabbitmq import names, topology, wire
from ketch.brokers.rabbitmq.config import Config
from ketch.brokers.rabbitmq.content import AmqpHeaders, encode, read
from ketch.brokers.rabbitmq.taking import TakingChannel
from ketch.errors import BrokerError, ConfigurationError
from ketch.url import Url

# --- names


@given(st.text(), st.text())
def test_a_name_can_be_read_back(group, topic):
    queue = names.queue_name("ketch", group, topic)
    assert len(queue) <= names.LONGEST
    if queue.count("/") == 2 and len(queue) < names.LONGEST:
        assert names.group_of(queue) == group


def test_no_two_groups_share_a_queue():
    parts = ["a", "b", "a.b", "a/b", "a+2Fb", "b/", "/", "", "é", "x" * 300, "x" * 301, "#", "*", "amq.x"]
    pairs = list(itertools.product(parts, parts))
    queues = {names.queue_name("ketch", group, topic) for group, topic in pairs}
    assert len(queues) == len(pairs)


@given(st.text(), st.text())
def test_every_name_can_be_declared(group, topic):
    commands.Queue.Declare(queue=names.queue_name("amq.topic", group, topic)).marshal()


@pytest.mark.parametrize(
    ("topic", "key"),
    [
        ("user.created", "user.created"),
        ("user.*", "user.*"),
        ("user.>", "user.*.#"),
        (">", "*.#"),
        ("a.*.>", "a.*.*.#"),
        ("a.#.b", "a.*.b"),
        ("a>", "a>"),
    ],
)
def test_a_pattern_is_bound_by_rabbitmqs_own_words(topic, key):
    assert names.binding_key(topic) == key


@given(st.integers(1, 24 * 86_400_000))
def test_a_delay_waits_in_a_queue_that_is_a_tenth_longer_at_most(milliseconds):
    upto = topology.step(milliseconds)
    assert milliseconds <= upto <= max(100, milliseconds * 1.1)


def test_there_is_a_bounded_number_of_queues_that_delay():
    lengths = {int(100 * 1.003**n) for n in range(5600)}
    assert max(lengths) > 20 * 86_400_000
    assert len({topology.step(length) for length in lengths}) < 200


# --- options


def config(text):
    return Config.from_url(Url.parse(text))


def test_a_bare_name_means_the_local_server():
    local = config("rabbitmq")
    assert (local.addresses, local.vhost, local.username) == ((("127.0.0.1", 5672),), "/", "guest")


def test_everything_can_be_said():
    said = config(
        "rabbitmq://me:p%40ss@one:1,[::1]:2,three/shop?exchange=e&timeout=1&heartbeat=3&delivery_limit=0&tls=1"
    )
    assert said.addresses == (("one", 1), ("::1", 2), ("three", 5671))
    assert (said.vhost, said.username, said.password, said.exchange) == ("shop", "me", "p@ss", "e")
    assert (said.timeout, said.heartbeat, said.delivery_limit) == (1.0, 3, 0)
    assert said.tls is not None
    assert said.location == "rabbitmq://one:1,[::1]:2,three:5671/shop"


@pytest.mark.parametrize(
    "wrong",
    [
        "rabbitmq://h:0",
        "rabbitmq://h:x",
        "rabbitmq://h?timeout=0",
        "rabbitmq://h?heartbeat=0",
        "rabbitmq://h?heartbeat=1.5",
        "rabbitmq://h?delivery_limit=-1",
        "rabbitmq://h?exchange=",
        "rabbitmq://h?exchange=a/b",
        "rabbitmq://h?tls_cert=only.pem",
        "rabbitmq://h?tls_ca=no-such-file.pem",
    ],
)
def test_what_makes_no_sense_is_refused(wrong):
    with pytest.raises(ConfigurationError):
        config(wrong)


# --- headers


@given(st.dictionaries(st.text("abc-._é", min_size=1, max_size=20), st.text()), st.text("a/b", max_size=20))
def test_headers_are_read_as_they_were_written(metadata, content_type):
    headers = {"ce-id": "1", **metadata, "content-type": content_type}
    came = dict(AmqpHeaders(encode(headers)))
    assert came == {name: value for name, value in headers.items() if name != "content-type" or value}


def test_pamqp_reads_what_we_write():
    properties = encode(
        {"ce-id": "1", "content-type": "a/b", "x": "ü"}, expiration=1500, extra={"x-ketch-attempt": "2"}
    )
    header = ContentHeader()
    header.unmarshal(b"\x00\x3c\x00\x00" + bytes(8) + properties)
    said = header.properties
    assert (said.content_type, said.delivery_mode, said.expiration) == ("a/b", 2, "1500")
    assert said.headers == {"cloudEvents:id": "1", "x": "ü", "x-ketch-attempt": "2"}


def test_a_header_name_over_255_bytes_is_refused():
    with pytest.raises(BrokerError, match="255"):
        encode({"x" * 256: "1"})


@given(st.binary(max_size=200))
def test_any_bytes_for_properties_do_no_harm(raw):
    read(raw)


def test_tables_nested_without_end_do_no_harm():
    nested = b""
    for _ in range(3000):
        nested = b"\x01aF" + len(nested).to_bytes(4, "big") + nested
    assert read(b"\x20\x00" + len(nested).to_bytes(4, "big") + nested) == ("", {})


# --- frames


class Told:
    """A receiver that remembers what it was told."""

    def __init__(self):
        self.said = []

    def on_method(self, channel, method):
        self.said.append((channel, method.name))

    def on_confirm(self, channel, tag, multiple, taken):
        self.said.append((channel, tag, multiple, taken))

    def on_arrivals(self, channel, arrivals):
        self.said += [(channel, arrival) for arrival in arrivals]


def delivery(channel, tag, body, frame_max=4096):
    frames = wire.marshal(
        channel, [commands.Basic.Deliver("c", tag, redelivered=True, exchange="ketch", routing_key="user.created")]
    )
    return frames + b"".join(wire.content(channel, encode({"x": "1"}), body, frame_max))


SPOKEN = (
    delivery(1, 1, b"one")
    + wire.HEARTBEAT
    + delivery(2, 1, b"")
    + delivery(1, 2, b"x" * 10_000)
    + wire.marshal(3, [commands.Basic.Ack(7, multiple=True), commands.Basic.Nack(8, multiple=False)])
    + wire.marshal(1, [commands.Basic.CancelOk("c")])
)


@pytest.mark.parametrize("size", [1, 7, 100, 100_000])
def test_frames_are_read_however_they_are_cut(size):
    told = Told()
    reader = wire.Reader(told)
    for at in range(0, len(SPOKEN), size):
        reader.feed(SPOKEN[at : at + size])
    arrived = [said for said in told.said if isinstance(said[1], wire.Arrival)]
    bodies = sorted((channel, arrival.tag, len(arrival.body)) for channel, arrival in arrived)
    assert bodies == [(1, 1, 3), (1, 2, 10_000), (2, 1, 0)]
    arrival = arrived[0][1]
    assert (arrival.redelivered, arrival.exchange, arrival.key) == (True, b"ketch", b"user.created")
    assert (3, 7, True, True) in told.said
    assert (3, 8, False, False) in told.said
    assert told.said[-1] == (1, "Basic.CancelOk")  # after all that came before it


@pytest.mark.parametrize(
    "wrong",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"\x01\x00\x01\xff\xff\xff\xff" + bytes(10),
        b"\x01\x00\x01\x00\x00\x00\x04\x00\x00\x00\x00\x00",
        b"\x05\x00\x01\x00\x00\x00\x00\xce",
        b"\x03\x00\x01\x00\x00\x00\x01x\xce",
        b"\x02\x00\x01\x00\x00\x00\x0e" + bytes(14) + b"\xce",
        b"\x01\x00\x01\x00\x00\x00\x04\x00\x63\x00\x63\xce",
        b"\x01\x00\x01\x00\x00\x00\x04\x00\x3c\x00\x50\xce",
        delivery(1, 1, b"")[:40] + delivery(1, 1, b""),
    ],
)
def test_what_is_no_amqp_ends_the_connection(wrong):
    with pytest.raises(AMQPFrameError):
        wire.Reader(Told()).feed(wrong)


# --- acknowledgements


class Line:
    """A connection that keeps what is written."""

    full = False

    def __init__(self):
        self.sent = b""
        self.released = []

    def send(self, data):
        self.sent += data

    def release(self, number):
        self.released.append(number)


class Taker:
    def on_arrivals(self, channel, arrivals):
        pass


def spoken(data):
    """Return the acknowledgements in what was written."""
    from pamqp import frame  # noqa: PLC0415 - for this alone

    found = []
    while data:
        used, _, method = frame.unmarshal(data)
        found.append((method.name.partition(".")[2], method.delivery_tag, method.multiple))
        data = data[used:]
    return found


def taking(count):
    line = Line()
    channel = TakingChannel(line, 1, Taker())
    channel.on_arrivals(
        [
            wire.Arrival(tag, redelivered=False, exchange=b"", key=b"", properties=b"", body=b"")
            for tag in range(1, count + 1)
        ]
    )
    return line, channel


async def test_a_whole_batch_is_acknowledged_by_one_frame():
    line, channel = taking(100)
    channel.settle(range(1, 101), [])
    assert spoken(line.sent) == [("Ack", 100, True)]
    assert channel.unsettled == 0


async def test_nothing_unsettled_is_acknowledged_with_the_others():
    line, channel = taking(6)
    channel.settle([1, 2, 4, 6], [])
    assert spoken(line.sent) == [("Ack", 2, True), ("Ack", 4, False), ("Ack", 6, False)]
    line.sent = b""
    channel.settle([3], [5])
    assert spoken(line.sent) == [("Nack", 5, False), ("Ack", 3, True)]


async def test_what_is_settled_twice_is_told_once():
    line, channel = taking(2)
    channel.settle([1], [])
    line.sent = b""
    channel.settle([1], [1])
    assert line.sent == b""


async def test_a_channel_whose_answer_is_late_is_given_up():
    line = Line()
    channel = TakingChannel(line, 1, Taker())
    with pytest.raises(TimeoutError):
        await channel.call(commands.Basic.Qos(), timeout=0.01)
    assert channel.lost.done()
    assert not line.released  # the server may still speak on it
    channel.on_method(commands.Channel.CloseOk())
    assert line.released == [1]


async def test_all_questions_of_a_channel_that_is_closed_are_answered():
    channel = TakingChannel(Line(), 1, Taker())
    asking = asyncio.create_task(channel.call(commands.Basic.Qos(), commands.Basic.Qos(), timeout=5))
    await asyncio.sleep(0)
    channel.on_method(commands.Channel.Close(404, "NOT_FOUND - no queue", 0, 0))
    with pytest.raises(AMQPNotFound, match="no queue"):
        await asking
