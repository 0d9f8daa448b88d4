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
    ],
)
def test_nothing_is_planned_with_a_reason(changes, reason):
    assert before_planning(replace(READY, **changes), POLICY) is reason


@pytest.mark.parametrize(
    ("smoothing", "known", "reason"),
    [
        ({"half_life_steps": 0.0, "window_steps": 8.0}, 7, Reason.NO_LOAD),
        ({"half_life_steps": 0.0, "window_steps": 8.0}, 8, None),
        ({"half_life_steps": 0.1}, 4.9, Reason.NO_LOAD),
        ({"half_life_steps": 0.1}, 5, None),
    ],
)
def test_a_short_estimate_does_not_have_to_cover_every_steps(smoothing, known, reason):
    policy = replace(POLICY, **smoothing)
    assert before_planning(replace(READY, known_steps=known), policy) is reason


def decided(candidate=GOOD, *, planned=False, step_seconds=0.03, policy=POLICY):
    return decide(candidate, planned=planned, step_seconds=step_seconds, policy=policy)


def test_experts_move_if_the_gain_is_worth_the_moves():
    assert decided() is Reason.IMPROVED
    assert decided(planned=True) is Reason.REPLANNED


@pytest.mark.parametrize("changes", [{"moves": 0}, {"after": 1.2, "seconds": 0.0}])
def test_the_gain_is_small_without_moves_or_if_the_imbalance_does_not_fall(changes):
    assert decided(replace(GOOD, **changes)) is Reason.SMALL_GAIN


def test_a_gain_below_the_time_of_its_moves_is_too_costly():
    # A twelfth of a step of 30 ms, half of which is the experts', over 1000 steps: 1.25 s.
    assert decided(replace(GOOD, seconds=1.24)) is Reason.IMPROVED
    assert decided(replace(GOOD, seconds=1.26)) is Reason.TOO_COSTLY
    assert decided(replace(GOOD, seconds=1.26), planned=True) is Reason.TOO_COSTLY


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
