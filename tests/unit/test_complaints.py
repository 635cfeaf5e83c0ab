"""Complaints: garbage among records is told of once, and not without end."""

import logging

from ketch.registries.complaints import _MOST, Complaints


def test_each_thing_is_complained_of_once(caplog):
    complaints = Complaints("there")
    for _ in range(3):
        complaints.make(b"a", "no record")
        complaints.make("b", "no record")
    assert [message.partition(": ")[2] for message in caplog.messages] == [
        "b'a' is passed over: no record",
        "'b' is passed over: no record",
    ]


def test_what_is_long_is_cut(caplog):
    Complaints("there").make("x" * 100_000, "y" * 100_000)
    assert len(caplog.text) < 1000


def test_after_many_complaints_the_rest_is_for_debugging(caplog):
    caplog.set_level(logging.DEBUG, "ketch.registry")
    complaints = Complaints("there")
    for number in range(_MOST + 10):
        complaints.make(str(number), "no record")
    levels = [record.levelno for record in caplog.records]
    assert levels == [logging.WARNING] * _MOST + [logging.DEBUG] * 10
