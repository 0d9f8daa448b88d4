"""Estimates: tokens a step, whatever spans of steps they are counted in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab_server.domain.errors import InvalidArgumentError
from trimtab_server.loads.estimates import Estimate, Smoothing

KINDS = [Smoothing(half_life_steps=16), Smoothing(window_steps=64)]
spans = st.tuples(st.integers(0, 500), st.integers(1, 40))


def new(smoothing: Smoothing) -> Estimate:
    return smoothing.estimate(1, 2)


def add(estimate: Estimate, rate: float, steps: int) -> None:
    estimate.add(np.array([[rate * steps, 0.0]]), steps)


def rate(estimate: Estimate) -> float:
    assert estimate.rate()[0, 1] == 0.0
    return float(estimate.rate()[0, 0])


@pytest.mark.parametrize("smoothing", KINDS)
@given(steps=st.lists(st.integers(1, 60), min_size=1, max_size=20))
def test_a_steady_rate_is_what_is_estimated_from_the_first_span_on(smoothing, steps):
    estimate = new(smoothing)
    for each in steps:
        add(estimate, 7.0, each)
        assert rate(estimate) == pytest.approx(7.0)


@pytest.mark.parametrize("smoothing", KINDS)
def test_nothing_is_known_before_the_first(smoothing):
    estimate = new(smoothing)
    assert (rate(estimate), estimate.steps) == (0.0, 0.0)


@given(st.lists(spans, min_size=1, max_size=10), st.integers(1, 39))
def test_where_a_span_is_cut_makes_no_difference_to_an_average_that_decays(spans, cut):
    whole, parts = new(KINDS[0]), new(KINDS[0])
    for tokens, steps in spans:
        add(whole, tokens, steps)
        first = min(cut, steps - 1)
        for part in (first, steps - first):
            if part:
                add(parts, tokens, part)
    assert rate(parts) == pytest.approx(rate(whole))
    assert parts.steps == pytest.approx(whole.steps)


def test_after_a_half_life_the_old_weighs_as_much_as_the_new():
    estimate = new(Smoothing(half_life_steps=16))
    add(estimate, 100.0, 10_000)
    add(estimate, 0.0, 16)
    assert rate(estimate) == pytest.approx(50.0)
    add(estimate, 0.0, 16)
    assert rate(estimate) == pytest.approx(25.0)


def test_a_window_forgets_what_is_older_by_an_eighth_at_most():
    estimate = new(Smoothing(window_steps=64))
    add(estimate, 100.0, 1000)
    for _ in range(72):
        add(estimate, 1.0, 1)
    assert rate(estimate) == pytest.approx(1.0)


@given(st.lists(spans, min_size=1, max_size=60))
def test_a_window_is_the_mean_of_the_last_steps_and_of_an_eighth_more_at_most(spans):
    estimate = new(Smoothing(window_steps=64))
    single = []
    for tokens, steps in spans:
        add(estimate, tokens, steps)
        single += [tokens] * steps
    covered = round(estimate.steps)
    assert rate(estimate) == pytest.approx(np.mean(single[-covered:]))
    # What a last span of 40 steps brings in is not cut.
    assert min(len(single), 64) <= covered < 64 + 40 + 8


@pytest.mark.parametrize("smoothing", KINDS)
@given(spans=st.lists(spans, min_size=1, max_size=10), later=spans)
def test_one_span_of_its_rate_and_steps_stands_for_all_that_came(smoothing, spans, later):
    """So that is all that a store keeps, and all that another smoothing goes on from."""
    estimate, restored = new(smoothing), new(smoothing)
    for tokens, steps in spans:
        add(estimate, tokens, steps)
    add(restored, rate(estimate), estimate.steps)
    assert rate(restored) == pytest.approx(rate(estimate))
    assert restored.steps == pytest.approx(estimate.steps)
    if smoothing is KINDS[0]:
        add(estimate, *later)
        add(restored, *later)
        assert rate(restored) == pytest.approx(rate(estimate))


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"half_life_steps": 1.0, "window_steps": 1.0}, "half_life_steps"),
        ({"half_life_steps": -1.0, "window_steps": 1.0}, "half_life_steps"),
        ({"half_life_steps": float("nan")}, "half_life_steps"),
        ({"window_steps": float("inf")}, "window_steps"),
    ],
)
def test_a_smoothing_that_makes_no_sense_is_named(values, field):
    with pytest.raises(InvalidArgumentError, match=field):
        Smoothing(**values)
