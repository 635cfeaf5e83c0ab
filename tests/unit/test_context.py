"""The context of the call or event in hand."""

import asyncio
import time

import pytest

from ketch import context
from ketch.context import Context
from ketch.message import Message


def test_outside_a_handler_it_is_empty():
    here = context.current()
    assert (here.name, dict(here.metadata), here.deadline, here.message) == ("", {}, None, None)
    assert here.remaining() is None


def test_entering_makes_it_current_and_leaving_restores_what_was():
    outer, inner = Context("outer"), Context("inner")
    first = context.enter(outer)
    second = context.enter(inner)
    assert context.current() is inner
    context.leave(second)
    assert context.current() is outer
    context.leave(first)
    assert context.current().name == ""


async def test_each_task_has_its_own_and_its_children_inherit_it():
    async def handle(name):
        context.enter(Context(name))
        await asyncio.sleep(0)
        child = asyncio.create_task(read())
        return context.current().name, await child

    async def read():
        return context.current().name

    assert await asyncio.gather(handle("a"), handle("b")) == [("a", "a"), ("b", "b")]
    assert context.current().name == ""


def test_what_remains_of_a_deadline_is_never_negative():
    assert Context(deadline=time.monotonic() - 5).remaining() == 0
    assert 50 < Context(deadline=time.monotonic() + 60).remaining() <= 60


def test_the_metadata_of_an_event_is_its_headers_but_for_the_attributes():
    event = Message("topic", {"ce-id": "7", "content-type": "c", "x-request-id": "1"}, b"")
    assert Context("topic", message=event).metadata == {"x-request-id": "1"}


def test_trailers_are_sent_only_when_a_handler_wrote_some():
    here = Context("/pkg.Service/Method")
    assert here.sent_trailers is None
    here.trailers["cost"] = "3"
    assert here.sent_trailers == {"cost": "3"}


def test_outside_a_handler_there_is_no_reply_to_send_anything_with():
    for name in ("trailers", "reply_metadata"):
        with pytest.raises(RuntimeError, match="isn't a handler"):
            getattr(context.current(), name)


def test_nobody_can_write_into_the_empty_metadata_that_all_share():
    with pytest.raises(TypeError):
        context.current().metadata["x"] = "y"
