"""Decisions: each reason by the smallest case that has it, and what holds for all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab_server.domain.errors import InvalidArgumentError
from trimtab_server.policy.decide import (
    Candidate,
    Reason,
    Situation,
    before_planning,
    decide,
    far_off,
    is_balanced,
)
from trimtab_server.policy.policy import Policy

POLICY = Policy(every_steps=10, cooldown_steps=30, start_above=1.05, stop_below=1.02, min_gain=0.01)
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
def test_planning_has_no_use(changes, reason):
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
def test_an_estimate_that_cannot_know_every_steps_need_not(smoothing, known, reason):
    policy = replace(POLICY, **smoothing)
    assert before_planning(replace(READY, known_steps=known), policy) is reason


def decided(improved=GOOD, planned=None, *, moving=False, step_seconds=0.03, policy=POLICY):
    return decide(improved, planned, moving=moving, step_seconds=step_seconds, policy=policy)


def test_an_improvement_that_is_worth_its_moves_is_made():
    decision = decided()
    assert (decision.reason, decision.candidate, decision.moves) == (Reason.IMPROVED, GOOD, True)


@pytest.mark.parametrize(
    ("before", "moving", "balanced"),
    [
        (1.05, False, True),
        (1.051, False, False),
        (1.021, True, False),
        (1.02, True, True),
    ],
)
def test_what_has_begun_goes_on_further_than_what_has_not(before, moving, balanced):
    assert is_balanced(before, moving, POLICY) is balanced
    decision = decided(Candidate(before, 1.0, 4, 0.0), moving=moving)
    assert (decision.reason is Reason.BALANCED) is balanced


@pytest.mark.parametrize("candidate", [replace(GOOD, after=1.19), replace(GOOD, moves=0)])
def test_a_gain_that_is_too_small_is_left_alone(candidate):
    assert decided(candidate).reason is Reason.SMALL_GAIN


def test_a_gain_that_its_moves_eat_up_is_left_alone():
    # A twelfth of a step of 30 ms, half of which is experts', over 1000 steps: 1.25 s.
    assert decided(replace(GOOD, seconds=1.24)).reason is Reason.IMPROVED
    assert decided(replace(GOOD, seconds=1.26)).reason is Reason.TOO_COSTLY


def test_where_the_load_has_shifted_a_new_plan_is_taken():
    plan = Candidate(before=1.9, after=1.01, moves=900, seconds=0.1)
    behind = Candidate(before=1.9, after=1.5, moves=100, seconds=0.01)
    decision = decided(behind, plan)
    assert (decision.reason, decision.candidate) == (Reason.REPLANNED, plan)
    assert decided(behind).candidate == behind


def test_a_layer_far_above_what_a_plan_comes_to_has_shifted():
    imbalance_L, least_L = np.array([1.5, 1.1, 1.0, 1.3]), np.array([1.0, 1.0, 1.0, 1.25])
    assert far_off(imbalance_L, least_L, POLICY).tolist() == [True, False, False, False]


candidates = st.builds(
    Candidate,
    before=st.floats(1, 10),
    after=st.floats(1, 10),
    moves=st.integers(0, 1000),
    seconds=st.floats(0, 100),
)


@given(candidates, st.none() | candidates, st.booleans(), st.floats(0, 1))
def test_experts_move_only_for_a_gain_that_pays(improved, planned, moving, step_seconds):
    decision = decided(improved, planned, moving=moving, step_seconds=step_seconds)
    if decision.moves:
        chosen = decision.candidate
        assert chosen.moves > 0
        assert chosen.after <= chosen.before * (1 - POLICY.min_gain) * (1 + 1e-12)
        gained = (1 - chosen.after / chosen.before) * step_seconds * 1000 * POLICY.moe_share
        assert step_seconds == 0 or gained >= chosen.seconds
        assert improved.before > POLICY.stop_below


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("half_life_steps", 0),
        ("every_steps", 0),
        ("cooldown_steps", -1),
        ("stop_below", 0.9),
        ("start_above", 1.0),
        ("min_gain", -0.1),
        ("moe_share", 1.5),
        ("node_bandwidth", float("inf")),
    ],
)
def test_a_policy_that_makes_no_sense_is_named(field, value):
    with pytest.raises(InvalidArgumentError, match=field):
        Policy(**{field: value})
