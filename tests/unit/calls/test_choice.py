"""Choice: labels, health and shares decide among whom a selector picks."""

from collections import Counter

import pytest

from ketch.calling.choice import Choice
from ketch.policy import CallPolicy
from ketch.registry import Instance
from ketch.selector import Candidate
from ketch.selectors.round_robin import round_robin


def candidate(id_, version="1", **labels):
    return Candidate(Instance("svc", id_, f"h:{id_}", version=version, metadata=labels), None)


def choice(candidates, labels=None, **policy):
    made = Choice(CallPolicy(**policy), round_robin(), labels or {})
    made.arrange(candidates)
    return made


def ids(made, times=200, key=""):
    return Counter(made.pick(key).instance.id for _ in range(times))


def test_where_there_is_nobody_nobody_is_picked():
    made = choice([])
    assert made.pick("") is None
    assert made.pick_but((), "") is None


def test_only_instances_with_the_labels_are_picked():
    made = choice(
        [candidate("a", zone="x"), candidate("b", zone="y"), candidate("c", zone="x", version="2")],
        match={"zone": "x", "version": "1"},
    )
    assert set(ids(made)) == {"a"}
    assert choice([candidate("b", zone="y")], match={"zone": "x"}).pick("") is None


def test_calls_are_shared_out_by_a_label():
    made = choice(
        [candidate("old"), candidate("new", version="2"), candidate("beta", version="3")],
        split={"version": {"1": 90, "2": 10}},
    )
    shares = ids(made, 5000)
    assert set(shares) == {"old", "new"}
    assert 300 < shares["new"] < 750


def test_the_share_of_a_version_that_is_not_there_goes_to_the_others():
    made = choice([candidate("old"), candidate("old2")], split={"version": {"1": 1, "2": 99}})
    assert set(ids(made)) == {"old", "old2"}


def test_a_key_stays_with_one_share():
    made = choice([candidate("old"), candidate("new", version="2")], split={"version": {"1": 50, "2": 50}})
    keys = [f"user-{n}" for n in range(50)]
    assert all(len(ids(made, 5, key)) == 1 for key in keys)
    assert {made.pick(key).instance.id for key in keys} == {"old", "new"}


def test_a_retry_stays_with_the_share_of_the_first_try():
    new = candidate("new", version="2")
    made = choice([candidate("old"), new, candidate("new2", version="2")], split={"version": {"1": 50, "2": 50}})
    assert {made.pick_but({new}, "").instance.id for _ in range(20)} == {"new2"}


def test_those_near_are_preferred_while_one_of_them_is_well():
    near, other, far = candidate("near", host="me"), candidate("other", host="me"), candidate("far", host="you")
    made = choice([near, other, far], {"host": "me"}, prefer="host")
    assert set(ids(made)) == {"near", "other"}
    near.out = True
    made.arrange([near, other, far])
    assert set(ids(made)) == {"other"}
    other.out = True
    made.arrange([near, other, far])
    assert set(ids(made)) == {"far"}


def test_what_is_out_is_picked_only_if_all_are():
    crew = [candidate("a"), candidate("b")]
    crew[0].out = True
    made = choice(crew)
    assert set(ids(made)) == {"b"}
    crew[1].out = True
    made.arrange(crew)
    assert set(ids(made)) == {"a", "b"}


def test_another_try_goes_to_one_that_was_not_tried_and_rather_to_one_that_is_well():
    crew = [candidate("a"), candidate("b"), candidate("c")]
    crew[1].out = True
    made = choice(crew)
    assert made.pick_but({crew[0]}, "").instance.id == "c"
    assert made.pick_but({crew[0], crew[2]}, "").instance.id == "b"
    assert made.pick_but(set(crew), "") is None


@pytest.mark.parametrize("size", [1, 3])
def test_it_follows_the_candidates_that_come_and_go(size):
    made = choice([candidate("gone")])
    crew = [candidate(str(n)) for n in range(size)]
    made.arrange(crew)
    assert set(ids(made)) == {one.instance.id for one in crew}
