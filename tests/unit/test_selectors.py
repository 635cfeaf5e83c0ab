"""Selectors pick an instance."""

import pytest

from ketch.registry import Instance
from ketch.selectors.random import random
from ketch.selectors.round_robin import round_robin

CREW = tuple(Instance("svc", str(number), f"h:{number}") for number in range(5))


@pytest.mark.parametrize("maker", [random, round_robin])
def test_a_single_instance_is_picked_always(maker):
    select = maker()
    assert {select(CREW[:1]).id for _ in range(5)} == {"0"}


@pytest.mark.parametrize("maker", [random, round_robin])
def test_every_instance_has_its_turn(maker):
    select = maker()
    assert {select(CREW).id for _ in range(500)} == {instance.id for instance in CREW}


def test_round_robin_goes_through_all_before_it_begins_again():
    select = round_robin()
    first = [select(CREW).id for _ in range(5)]
    assert sorted(first) == ["0", "1", "2", "3", "4"]
    assert [select(CREW).id for _ in range(5)] == first


def test_round_robin_goes_on_when_instances_come_and_go():
    select = round_robin()
    for size in (5, 2, 1, 4, 5):
        assert len({select(CREW[:size]).id for _ in range(size)}) == size


def test_each_client_takes_turns_of_its_own():
    one, other = round_robin(), round_robin()
    turns = [one(CREW).id for _ in range(2)]
    for _ in range(3):
        other(CREW)
    turns += [one(CREW).id for _ in range(3)]
    assert sorted(turns) == ["0", "1", "2", "3", "4"]


def test_clients_that_start_together_begin_at_different_instances():
    assert len({round_robin()(CREW).id for _ in range(200)}) > 1
