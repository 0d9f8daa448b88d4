"""All or none: survivors of a group have got the same results, whoever died whenever."""

from __future__ import annotations

import random
from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab_tools.simulate.errors import FleetError
from trimtab_tools.simulate.group import Group
from trimtab_tools.simulate.messages import Broken, Brought, Result


def brought(member: int, step: int, members: int = 3, what: str = "tokens") -> Brought:
    """What a member brings: for each other one, who it is from, for whom, and when."""
    return Brought(step, what, [f"{member}>{other}@{step}".encode() for other in range(members)])


def test_nobody_hears_anything_before_all_have_come():
    group = Group("g", [0, 1, 2])

    assert group.brought(0, brought(0, 5)) == []
    assert group.brought(2, brought(2, 5)) == []
    answers = dict(group.brought(1, brought(1, 5)))

    assert sorted(answers) == [0, 1, 2]
    for member, answer in answers.items():
        assert answer == Result([f"{other}>{member}@5".encode() for other in range(3)])


def test_who_waits_hears_of_the_break_and_others_as_they_come():
    group = Group("g", [0, 1, 2])
    group.brought(0, brought(0, 5))

    assert group.break_up("rank 2 has died") == [(0, Broken("rank 2 has died"))]
    assert group.brought(1, brought(1, 5)) == [(1, Broken("rank 2 has died"))]


def test_the_first_reason_stays():
    group = Group("g", [0, 1])
    group.break_up("first")

    assert group.break_up("second") == []
    assert group.brought(0, brought(0, 1, 2)) == [(0, Broken("first"))]


@pytest.mark.parametrize("other", [brought(1, 6, 2), brought(1, 5, 2, "values")])
def test_members_at_different_collectives_are_a_mistake(other):
    group = Group("g", [0, 1])
    group.brought(0, brought(0, 5, 2))

    with pytest.raises(FleetError, match="different collectives"):
        group.brought(1, other)


def test_nobody_else_takes_part():
    group = Group("g", [0, 1])

    with pytest.raises(FleetError, match="rank 2 came to a collective"):
        group.brought(2, brought(2, 5, 2))


@given(seed=st.integers(0, 2**32 - 1))
def test_survivors_have_got_the_same_results_whenever_one_dies(seed):
    rng = random.Random(seed)
    group, members = Group("g", range(4)), range(4)
    got, waiting, broken = defaultdict(list), set(), set()
    dies_after, victim = rng.randrange(30), rng.choice(members)

    def take(answers):
        for member, answer in answers:
            waiting.discard(member)
            if isinstance(answer, Result):
                got[member].append(answer.parts)
            else:
                broken.add(member)

    for moment in range(60):
        if moment == dies_after:
            take(group.break_up("died"))
        alive = [m for m in members if m != victim or moment < dies_after]
        ready = [m for m in alive if m not in waiting | broken]
        if ready:
            member = rng.choice(ready)
            waiting.add(member)
            take(group.brought(member, brought(member, len(got[member]), 4)))
    survivors = [m for m in members if m != victim]

    assert broken >= set(survivors)
    assert len({len(got[m]) for m in survivors}) == 1
    assert all(len(got[m]) <= dies_after // 4 for m in survivors)
