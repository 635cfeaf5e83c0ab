"""Subsetting: connections stay bounded, load even, and little moves when instances come and go."""

from collections import Counter

from ketch.calling.subset import Subset
from ketch.registry import Instance


def crew(*numbers):
    return [Instance("svc", f"id-{n}", f"h:{n + 1}") for n in numbers]


def ids(instances):
    return {one.id for one in instances}


def test_where_there_are_few_all_are_used():
    assert Subset("me", 5)(crew(*range(5))) == crew(*range(5))
    assert Subset("me", 0)(crew(*range(500))) == crew(*range(500))


def test_a_client_uses_the_same_ones_each_time_in_the_order_in_which_they_came():
    subset = Subset("me", 10)(crew(*range(100)))
    assert subset == Subset("me", 10)(crew(*range(100)))
    assert len(subset) == 10
    assert [int(one.id[3:]) for one in subset] == sorted(int(one.id[3:]) for one in subset)


def test_an_instance_that_leaves_is_replaced_by_one_other():
    subset = Subset("me", 10)
    before = ids(subset(crew(*range(100))))
    for gone in range(100):
        after = ids(subset(crew(*(n for n in range(100) if n != gone))))
        assert len(before - after) == (f"id-{gone}" in before)


def test_an_instance_that_comes_takes_the_place_of_one_at_most():
    subset = Subset("me", 10)
    before = ids(subset(crew(*range(100))))
    for new in range(100, 300):
        after = ids(subset(crew(*range(100), new)))
        assert after == before or (len(after - before) == 1 and f"id-{new}" in after)


def test_clients_are_spread_evenly_over_the_instances():
    instances = crew(*range(100))
    load = Counter(one.id for client in range(1000) for one in Subset(f"client-{client}", 20)(instances))
    assert len(load) == 100
    assert min(load.values()) > 140
    assert max(load.values()) < 270


def test_what_is_remembered_is_bounded_by_the_instances_there_are():
    subset = Subset("me", 2)
    for first in range(0, 1000, 10):
        subset(crew(*range(first, first + 10)))
    assert len(subset._ranks) == 10
