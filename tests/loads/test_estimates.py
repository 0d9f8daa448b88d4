"""Estimates of tokens per step, whatever the lengths of reports."""

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
def test_a_steady_rate_is_estimated_exactly_from_the_first_report_on(smoothing, steps):
    estimate = new(smoothing)
    for each in steps:
        add(estimate, 7.0, each)
        assert rate(estimate) == pytest.approx(7.0)


@pytest.mark.parametrize("smoothing", KINDS)
def test_an_estimate_is_empty_before_the_first_report(smoothing):
    estimate = new(smoothing)
    assert (rate(estimate), estimate.steps) == (0.0, 0.0)


@given(st.lists(spans, min_size=1, max_size=10), st.integers(1, 39))
def test_a_decaying_average_does_not_depend_on_where_reports_are_cut(spans, cut):
    whole, parts = new(KINDS[0]), new(KINDS[0])
    for tokens, steps in spans:
        add(whole, tokens, steps)
        first = min(cut, steps - 1)
        for part in (first, steps - first):
            if part:
                add(parts, tokens, part)
    assert rate(parts) == pytest.approx(rate(whole))
    assert parts.steps == pytest.approx(whole.steps)


def test_after_a_half_life_old_and_new_counts_have_equal_weight():
    estimate = new(Smoothing(half_life_steps=16))
    add(estimate, 100.0, 10_000)
    add(estimate, 0.0, 16)
    assert rate(estimate) == pytest.approx(50.0)
    add(estimate, 0.0, 16)
    assert rate(estimate) == pytest.approx(25.0)


def test_a_window_exceeds_its_length_by_at_most_an_eighth():
    estimate = new(Smoothing(window_steps=64))
    add(estimate, 100.0, 1000)
    for _ in range(72):
        add(estimate, 1.0, 1)
    assert rate(estimate) == pytest.approx(1.0)


@given(st.lists(spans, min_size=1, max_size=60))
def test_a_window_is_the_mean_of_its_steps_and_at_most_an_eighth_more(spans):
    estimate = new(Smoothing(window_steps=64))
    single = []
    for tokens, steps in spans:
        add(estimate, tokens, steps)
        single += [tokens] * steps
    covered = round(estimate.steps)
    assert rate(estimate) == pytest.approx(np.mean(single[-covered:]))
    # A last report of 40 steps is not cut.
    assert min(len(single), 64) <= covered < 64 + 40 + 8


@pytest.mark.parametrize("smoothing", KINDS)
@given(spans=st.lists(spans, min_size=1, max_size=10), later=spans)
def test_rate_and_steps_are_enough_to_resume_an_estimate(smoothing, spans, later):
    """So a store keeps only these, and another smoothing continues from them."""
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
def test_an_invalid_smoothing_is_named(values, field):
    with pytest.raises(InvalidArgumentError, match=field):
        Smoothing(**values)
