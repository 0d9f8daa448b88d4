"""Counters and estimates are restored from the store, even those of earlier versions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from trimtab_server.engine.baselines import baseline_of, restore
from trimtab_server.loads.counters import Counters
from trimtab_server.loads.estimates import Estimate, Smoothing

TOKENS = np.array([[3.0, 5.0]])
KINDS = [Smoothing(half_life_steps=16), Smoothing(window_steps=64), Smoothing()]


def estimate(smoothing: Smoothing) -> Estimate:
    return smoothing.estimate(1, 2)


@pytest.mark.parametrize("smoothing", KINDS)
def test_a_restored_estimate_has_the_same_evidence(smoothing):
    before, after = estimate(smoothing), estimate(smoothing)
    restore(baseline_of(Counters(1, 1, 2), before), after)
    assert (after.steps, after.effective_steps) == (0, 0), "without counts"
    for steps in (10, 30, 5):
        before.add(TOKENS * steps, steps)
    restore(baseline_of(Counters(1, 1, 2), before), after)
    assert after.rate() == pytest.approx(before.rate())
    assert after.steps == pytest.approx(before.steps)
    assert after.effective_steps == pytest.approx(before.effective_steps)
    assert after.effective_steps < 46


def test_an_estimate_of_an_earlier_version_is_read_without_its_evidence():
    before, after = estimate(KINDS[0]), estimate(KINDS[0])
    before.add(TOKENS * 20, 20)
    saved = baseline_of(Counters(1, 1, 2), before)
    restore(replace(saved, estimate=saved.estimate[:-8]), after)
    assert after.rate() == pytest.approx(before.rate())
    assert after.steps == pytest.approx(20)
    for _ in range(500):
        before.add(TOKENS * 10, 10)
    after, saved = estimate(KINDS[0]), baseline_of(Counters(1, 1, 2), before)
    restore(replace(saved, estimate=saved.estimate[:-8]), after)
    assert after.effective_steps == pytest.approx(2 / np.log(2) * 16)
