"""All or none: the survivors of a group have got the same results, whenever a member dies."""

from __future__ import annotations

import random
from collections import defaultdict

import pytest

from trimtab_tools.simulate.errors import FleetError
from trimtab_tools.simulate.group import Group
from trimtab_tools.simulate.messages import Contribution, GroupBroken, Result


def contribution(
    member: int, step: int, members: int = 3, collective: str = "tokens"
) -> Contribution:
    """A contribution whose parts name their sender, their receiver and the step."""
    return Contribution(
        step, collective, [f"{member}>{other}@{step}".encode() for other in range(members)]
    )


def test_there_is_no_answer_before_all_have_contributed():
    group = Group("g", [0, 1, 2])

    assert group.contribute(0, contribution(0, 5)) == []
    assert group.contribute(2, contribution(2, 5)) == []
    answers = dict(group.contribute(1, contribution(1, 5)))

    assert sorted(answers) == [0, 1, 2]
    for member, answer in answers.items():
        assert answer == Result([f"{other}>{member}@5".encode() for other in range(3)])


def test_waiting_members_are_told_at_once_that_the_group_is_broken_and_others_later():
    group = Group("g", [0, 1, 2])
    group.contribute(0, contribution(0, 5))

    assert group.break_up("rank 2 has died") == [(0, GroupBroken("rank 2 has died"))]
    assert group.contribute(1, contribution(1, 5)) == [(1, GroupBroken("rank 2 has died"))]


def test_the_first_reason_is_kept():
    group = Group("g", [0, 1])
    group.break_up("first")

    assert group.break_up("second") == []
    assert group.contribute(0, contribution(0, 1, 2)) == [(0, GroupBroken("first"))]


@pytest.mark.parametrize("other", [contribution(1, 6, 2), contribution(1, 5, 2, "values")])
def test_members_at_different_collectives_are_an_error(other):
    group = Group("g", [0, 1])
    group.contribute(0, contribution(0, 5, 2))

    with pytest.raises(FleetError, match="different collectives"):
        group.contribute(1, other)


def test_a_stranger_cannot_contribute():
    group = Group("g", [0, 1])

    with pytest.raises(FleetError, match="rank 2 came to a collective"):
        group.contribute(2, contribution(2, 5, 2))


def test_survivors_have_got_the_same_results_whenever_one_dies():
    for seed in range(50):
        run_until_one_has_died(random.Random(seed), seed)


def run_until_one_has_died(rng: random.Random, seed: int) -> None:
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
            take(group.contribute(member, contribution(member, len(got[member]), 4)))
    survivors = [m for m in members if m != victim]

    assert broken >= set(survivors), seed
    assert len({len(got[m]) for m in survivors}) == 1, seed
    assert all(len(got[m]) <= dies_after // 4 for m in survivors), seed
