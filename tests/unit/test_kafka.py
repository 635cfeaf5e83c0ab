"""Kafka without a server: offsets, names, what was given back, headers, options."""

import asyncio

import pytest

from ketch.broker import Delivery
from ketch.brokers.kafka.config import Config
from ketch.brokers.kafka.deadlines import Deadlines
from ketch.brokers.kafka.later import Later
from ketch.brokers.kafka.names import Names, group_id, topic_name
from ketch.brokers.kafka.progress import Progress
from ketch.brokers.kafka.wire import RecordHeaders, Writer
from ketch.errors import ConfigurationError
from ketch.message import Message, Stamped
from ketch.url import Url


def taken(*offsets):
    progress = Progress()
    for offset in offsets:
        assert progress.take(offset, 1000 + offset)
    return progress


# --- progress


def test_only_what_precedes_every_unsettled_one_is_committed():
    progress = taken(5, 6, 7)
    progress.settle(6)
    progress.settle(7)
    assert progress.to_commit is None
    progress.settle(5)
    assert progress.to_commit == 8


def test_gaps_of_a_compacted_log_hold_up_nothing():
    progress = taken(5, 9, 20)
    for offset in (5, 9):
        progress.settle(offset)
    assert progress.to_commit == 10


def test_what_was_committed_is_not_committed_again():
    progress = taken(1)
    progress.settle(1)
    progress.committed = progress.to_commit
    assert progress.to_commit is None


def test_what_was_given_back_is_in_nobodys_hand_but_unsettled():
    progress = taken(1, 2)
    progress.waiting += 1
    progress.settle(2)
    assert (progress.in_hand, progress.span) == (0, 2)


def test_what_comes_again_after_a_rebalance_is_not_taken_twice():
    progress = taken(1, 2, 3)
    progress.begin_anew()
    assert progress.fits(2, 1002)
    assert not progress.take(2, 1002)
    assert progress.take(4, 1004)


def test_offsets_that_go_back_without_a_rebalance_are_of_another_log():
    assert not taken(1, 2, 3).fits(1, 1001)


def test_later_events_at_offsets_of_before_are_of_another_log():
    progress = taken(1, 2, 3)
    progress.begin_anew()
    assert not progress.fits(2, 5000)


# --- names


@pytest.mark.parametrize("topic", ["user.created", "Orders-v2.placed_at", "a", "x" * 249])
def test_a_name_that_kafka_takes_stays(topic):
    assert topic_name(topic) == topic


@pytest.mark.parametrize("topic", ["user/created", "über", ".", "..", "x" * 250, "a b", ""])
def test_a_name_that_kafka_does_not_take_becomes_one_that_it_takes(topic):
    name = topic_name(topic)
    assert topic_name(name) == name
    assert name not in (topic, ".", "..")


def test_names_that_look_alike_stay_apart():
    topics = ["a/b", "a-b", "a:b", "a b", "x" * 250, "x" * 251]
    assert len({topic_name(topic) for topic in topics}) == len(topics)


def test_groups_of_two_topics_are_two_groups():
    pairs = [("g", "a/b"), ("g/a", "b"), ("g", "a"), ("g", "b"), ("h", "a")]
    assert len({group_id(group, topic) for group, topic in pairs}) == len(pairs)


def test_names_that_are_remembered_are_bounded():
    names = Names()
    for number in range(10_000):
        assert names[f"t.{number}"] == f"t.{number}"
    assert len(names) <= 4096


# --- given back


async def test_what_is_due_comes_in_the_order_of_its_time():
    later = Later()
    deliveries = [Delivery(Message("t", {}, b"%d" % number)) for number in range(3)]
    later.add(deliveries[0], 3600.0)
    later.add(deliveries[1], 0.0)
    later.add(deliveries[2], -1.0)
    assert later.due(5) == [deliveries[2], deliveries[1]]
    assert later.due(5) == []
    assert 3500 < later.next <= 3600
    later.keep(lambda delivery: delivery is not deliveries[0])
    assert len(later) == 0


# --- publications


async def test_what_is_not_confirmed_in_time_fails_and_the_rest_is_left_alone():
    loop = asyncio.get_running_loop()
    deadlines = Deadlines(0.05)
    done, late = loop.create_future(), loop.create_future()
    deadlines.watch(done)
    deadlines.watch(late)
    done.set_result("sent")
    with pytest.raises(TimeoutError):
        await late
    assert await done == "sent"
    later = deadlines.watch(loop.create_future())
    with pytest.raises(TimeoutError):
        await later
    deadlines.close()


# --- the wire


def test_headers_are_those_of_the_binding_and_come_back():
    shared = {"ce-source": "shop", "content-type": "application/protobuf", "tenant": "bbc"}
    stamped = Stamped(shared)
    written = Writer().headers(stamped)
    assert ("ce_source", b"shop") in written
    assert ("content-type", b"application/protobuf") in written
    assert ("tenant", b"bbc") in written
    assert dict(RecordHeaders(written, None)) == dict(stamped)


def test_headers_of_a_plain_client_are_found_in_any_case_and_bad_bytes_do_no_harm():
    headers = RecordHeaders([("Content-Type", b"text/plain"), ("x", b"\xff"), ("y", None)], b"\xff")
    assert headers.get("content-type") == "text/plain"
    assert (headers["x"], headers["y"], headers["ce-partitionkey"]) == ("\ufffd", "", "\ufffd")
    assert headers.get("absent") is None


# --- options


@pytest.mark.parametrize(
    "options",
    [
        "partitions=0",
        "partitions=1.5",
        "replication=0",
        "timeout=0",
        "connect_timeout=-1",
        "compression=rar",
        "tls_cert=x",
        "nonsense=1",
    ],
)
def test_a_wrong_option_is_refused(options):
    with pytest.raises(ConfigurationError):
        Config.from_url(Url.parse(f"kafka://h:9092?{options}"))


def test_an_unknown_sasl_mechanism_is_refused_and_the_password_stays_secret():
    with pytest.raises(ConfigurationError) as caught:
        Config.from_url(Url.parse("kafka://ann:s3cret@h:9092?sasl=GSSAPI"))
    assert "s3cret" not in str(caught.value)


def test_several_servers_may_be_named_and_no_location_tells_the_password():
    config = Config.from_url(Url.parse("kafka://ann:s3cret@a:1,b:2?sasl=SCRAM-SHA-512&tls=true"))
    assert config.location == "a:1, b:2"
    assert (config.login["security_protocol"], config.login["sasl_mechanism"]) == ("SASL_SSL", "SCRAM-SHA-512")
