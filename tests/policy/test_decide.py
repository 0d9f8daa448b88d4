"""Decisions: the smallest case for each reason, and properties of all decisions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab_server.domain.errors import InvalidArgumentError
from trimtab_server.policy.decide import (
    MOVES,
    Candidate,
    Reason,
    Situation,
    before_planning,
    decide,
    shifted_layers,
)
from trimtab_server.policy.floor import Floor
from trimtab_server.policy.policy import Policy

POLICY = Policy(every_steps=10, cooldown_steps=30)
READY = Situation(100, 80, 60, not_ready=None, known_steps=100, step_seconds=0.03)
GOOD = Candidate(before=1.2, after=1.1, moves=4, seconds=0.001)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"decided_at": 91}, Reason.TOO_SOON),
        ({"decided_at": 90}, None),
        ({"decided_at": -1, "switched_at": -1, "step": 0}, None),
        ({"not_ready": "no group is complete yet"}, Reason.NOT_READY),
        ({"known_steps": 0}, Reason.NO_LOAD),
        ({"known_steps": 9}, Reason.NO_LOAD),
        ({"known_steps": 10 - 1e-12}, None),
        ({"step_seconds": 0.0}, Reason.NO_LOAD),
        ({"switched_at": 71}, Reason.COOLDOWN),
        ({"switched_at": 70}, None),
        # A short estimate does not have to cover every_steps.
        ({"known_steps": 7, "half_life_steps": 0.0, "window_steps": 8.0}, Reason.NO_LOAD),
        ({"known_steps": 8, "half_life_steps": 0.0, "window_steps": 8.0}, None),
        ({"known_steps": 4.9, "half_life_steps": 0.1}, Reason.NO_LOAD),
        ({"known_steps": 5, "half_life_steps": 0.1}, None),
    ],
)
def test_nothing_is_planned_with_a_reason(changes, reason):
    situation = {name: value for name, value in changes.items() if hasattr(READY, name)}
    policy = {name: value for name, value in changes.items() if hasattr(POLICY, name)}
    assert before_planning(replace(READY, **situation), replace(POLICY, **policy)) is reason


def decided(candidate, *, planned=False, step_seconds=0.03, policy=POLICY):
    return decide(candidate, planned=planned, step_seconds=step_seconds, policy=policy)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, Reason.IMPROVED),
        ({"moves": 0}, Reason.SMALL_GAIN),
        ({"after": 1.2, "seconds": 0.0}, Reason.SMALL_GAIN),
        # A twelfth of a step of 30 ms, half of which is the experts', over 1000 steps: 1.25 s.
        ({"seconds": 1.24}, Reason.IMPROVED),
        ({"seconds": 1.26}, Reason.TOO_COSTLY),
    ],
)
def test_experts_move_if_the_gain_is_worth_the_moves(changes, reason):
    candidate = replace(GOOD, **changes)
    assert decided(candidate) is reason
    planned = Reason.REPLANNED if reason is Reason.IMPROVED else reason
    assert decided(candidate, planned=True) is planned


def test_a_layer_far_above_noise_and_a_new_plan_has_shifted():
    imbalance_L = np.array([1.5, 1.1, 1.0, 1.3, 1.49, 1.51])
    least_L = np.array([1.0, 1.0, 1.0, 1.25, 1.0, 1.0])
    excess_L = np.array([0.0, 0.0, 0.0, 0.0, 0.4, 0.4])
    floor = Floor(1, excess_L, excess_L, excess_L)
    policy = replace(POLICY, replan_gap=0.3)
    found = shifted_layers(imbalance_L, least_L, floor, policy)
    assert found.tolist() == [True, False, False, False, False, True]


candidates = st.builds(
    Candidate,
    before=st.floats(1, 10),
    after=st.floats(1, 10),
    moves=st.integers(0, 1000),
    seconds=st.floats(0, 100),
)


@given(candidates, st.booleans(), st.floats(0, 1))
def test_experts_move_only_for_a_gain_that_pays(candidate, planned, step_seconds):
    reason = decided(candidate, planned=planned, step_seconds=step_seconds)
    if reason in MOVES:
        assert candidate.moves > 0
        gained = (1 - candidate.after / candidate.before) * step_seconds * 1000 * POLICY.moe_share
        assert gained >= candidate.seconds


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("half_life_steps", -1),
        ("every_steps", 0),
        ("cooldown_steps", -1),
        ("least_gain", -0.1),
        ("least_gain", float("inf")),
        ("replan_gap", float("inf")),
        ("moe_share", 1.5),
        ("node_bandwidth", float("inf")),
    ],
)
def test_an_invalid_policy_is_named(field, value):
    with pytest.raises(InvalidArgumentError, match=field):
        Policy(**{field: value})
