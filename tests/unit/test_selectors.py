"""Selectors pick an instance."""

from collections import Counter

import pytest

from ketch.registry import Instance
from ketch.selector import Candidate
from ketch.selectors.consistent_hash import consistent_hash
from ketch.selectors.least_busy import least_busy
from ketch.selectors.random import random
from ketch.selectors.round_robin import round_robin


def crew(size, first=0):
    return tuple(Candidate(Instance("svc", str(n), f"h:{n}"), None) for n in range(first, first + size))


CREW = crew(5)
MAKERS = [random, round_robin, least_busy, consistent_hash]


def picked(select, candidates, key=""):
    return select(candidates, key).instance.id


@pytest.mark.parametrize("maker", MAKERS)
def test_a_single_instance_is_picked_always(maker):
    select = maker()
    assert {picked(select, CREW[:1], key) for key in ("", "a", "b")} == {"0"}


@pytest.mark.parametrize("maker", MAKERS)
def test_every_instance_has_its_turn(maker):
    select = maker()
    assert {picked(select, CREW) for _ in range(500)} == {one.instance.id for one in CREW}


def test_round_robin_goes_through_all_before_it_begins_again():
    select = round_robin()
    first = [picked(select, CREW) for _ in range(5)]
    assert sorted(first) == ["0", "1", "2", "3", "4"]
    assert [picked(select, CREW) for _ in range(5)] == first


def test_round_robin_goes_on_when_instances_come_and_go():
    select = round_robin()
    for size in (5, 2, 1, 4, 5):
        assert len({picked(select, CREW[:size]) for _ in range(size)}) == size


def test_each_client_takes_turns_of_its_own():
    one, other = round_robin(), round_robin()
    turns = [picked(one, CREW) for _ in range(2)]
    for _ in range(3):
        picked(other, CREW)
    turns += [picked(one, CREW) for _ in range(3)]
    assert sorted(turns) == ["0", "1", "2", "3", "4"]


def test_clients_that_start_together_begin_at_different_instances():
    assert len({picked(round_robin(), CREW) for _ in range(200)}) > 1


def test_least_busy_never_picks_the_busiest():
    crowd = crew(5)
    crowd[3].in_flight = 9
    select = least_busy()
    assert Counter(picked(select, crowd) for _ in range(1000))["3"] == 0


def test_least_busy_keeps_what_is_in_hand_even():
    crowd = crew(10)
    select = least_busy()
    for _ in range(1000):
        select(crowd, "").in_flight += 1
    assert max(one.in_flight for one in crowd) - min(one.in_flight for one in crowd) <= 8


def test_the_calls_of_a_key_go_to_one_instance_whichever_client_makes_them():
    keys = [f"user-{n}" for n in range(200)]
    one, other, five = consistent_hash(), consistent_hash(), crew(5)
    assert [picked(one, CREW, key) for key in keys] == [picked(other, five, key) for key in keys]
    assert {picked(one, CREW, key) for key in keys} == {"0", "1", "2", "3", "4"}


def test_an_instance_that_comes_moves_only_its_own_share_of_the_keys():
    keys = [f"user-{n}" for n in range(5000)]
    select, nine, ten = consistent_hash(), crew(9), crew(10)
    before = {key: picked(select, nine, key) for key in keys}
    after = {key: picked(select, ten, key) for key in keys}
    moved = [key for key in keys if before[key] != after[key]]
    assert {after[key] for key in moved} == {"9"}
    assert len(moved) < 2 * len(keys) / 10


def test_keys_are_spread_evenly():
    select = consistent_hash()
    ten = crew(10)
    shares = Counter(picked(select, ten, f"user-{n}") for n in range(20_000))
    assert max(shares.values()) < 1.5 * 2000


def test_any_text_can_be_a_key():
    select = consistent_hash()
    assert picked(select, CREW, "\ud800 größe") == picked(select, CREW, "\ud800 größe")
