"""Messages out of the pieces that a stream comes in."""

import tracemalloc
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ketch.errors import ResourceExhausted
from ketch.grpc.inbox import Inbox, Pool
from ketch.grpc.large import LARGE


class Stream:
    """What an inbox needs of a stream."""

    got_end = closed = False

    def __init__(self):
        self.consumed = 0

    def consume(self, size):
        self.consumed += size


def make(limit=1_000_000):
    stream = Stream()
    return stream, Inbox(stream, Pool(10_000_000), limit)


def framed(body):
    return b"\0" + len(body).to_bytes(4) + body


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([0, 1, 100, LARGE - 1, LARGE, LARGE + 1, 200_000]), max_size=6), st.data())
def test_however_they_are_cut_the_same_messages_come_out(sizes, data):
    bodies = [bytes([number % 251]) * size for number, size in enumerate(sizes, 1)]
    wire = b"".join(map(framed, bodies))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=12)))
    stream, inbox = make()
    found = []
    for start, stop in zip([0, *cuts], [*cuts, len(wire)], strict=True):
        inbox.feed(wire[start:stop])
        while (body := inbox.take()) is not None:
            found.append(body)
    assert found == bodies
    assert not inbox
    assert stream.consumed == len(wire)


def test_a_large_message_in_single_bytes_costs_no_object_for_each():
    _, inbox = make()
    wire = framed(bytes(200_000))
    tracemalloc.start()
    for at in range(len(wire)):
        inbox.feed(wire[at : at + 1])
        inbox.check()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert inbox.take() == bytes(200_000)
    assert peak < 1_500_000


def test_what_is_over_the_limit_is_refused_before_it_came():
    _, inbox = make(limit=LARGE)
    inbox.feed(framed(bytes(LARGE + 1))[:10])
    with pytest.raises(ResourceExhausted):
        inbox.take()


def half(pool, size):
    """Return an inbox that got the beginning of a message of so many bytes, and its stream."""
    stream = Stream()
    inbox = Inbox(stream, pool, 1_000_000)
    inbox.feed(framed(bytes(size))[:10])
    inbox.check()
    return stream, inbox


def test_who_leaves_the_line_for_room_is_forgotten():
    pool = Pool(1000)
    _, _holding = half(pool, 900)
    stream, waiting = half(pool, 900)
    forgotten = weakref.ref(stream)
    waiting.close()
    del stream, waiting
    assert forgotten() is None


def test_those_behind_one_who_leaves_the_line_go_on():
    pool = Pool(1000)
    _, _holding = half(pool, 500)
    _, large = half(pool, 900)
    stream, _small = half(pool, 100)
    assert not stream.consumed
    large.close()
    assert stream.consumed == 10
