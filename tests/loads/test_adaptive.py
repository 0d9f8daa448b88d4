"""The adaptive load estimate of a deployment."""

from __future__ import annotations

import numpy as np
import pytest

from trimtab_server.loads.adaptive import AdaptiveLoad
from trimtab_server.loads.estimates import Loads
from trimtab_server.loads.evidence import Known

L, E = 2, 16
RNG = np.random.default_rng(0)
SHARE = RNG.dirichlet(np.ones(E), L)


def none() -> dict[str, Loads]:
    return {}


def report(adaptive: AdaptiveLoad, counts_LE: np.ndarray, steps: int) -> None:
    """A report of the only worker, which is taken into account at once."""
    adaptive.add("w", counts_LE, steps)
    adaptive.update({"w"}, none, None)


def known(adaptive: AdaptiveLoad) -> Known:
    found = adaptive.known()
    assert found is not None
    return found


def test_before_a_cell_is_complete_nothing_is_known() -> None:
    adaptive = AdaptiveLoad(L, E)
    report(adaptive, SHARE * 15, 15)
    assert adaptive.known() is None


@pytest.mark.parametrize("steps", [1, 4, 16, 50, 400])
def test_how_often_it_is_reported_changes_little(steps: int) -> None:
    """The same counts of 4,000 steps give the same load, and most of them keep their weight."""
    counts_TLE = np.random.default_rng(2).poisson(SHARE * 100, (4000, L, E)).astype(float)
    adaptive = AdaptiveLoad(L, E)
    for span_TLE in np.split(counts_TLE, 4000 // steps):
        report(adaptive, span_TLE.sum(0), steps)
    load_LE, evidence = known(adaptive)
    assert np.abs(load_LE - counts_TLE.mean(0)).sum() < 0.03 * L * 100
    assert 0.05 * 4000 * 100 < evidence.tokens < 1.05 * 4000 * 100


def test_rates_of_workers_add_up_and_each_worker_is_in_one_half() -> None:
    adaptive = AdaptiveLoad(L, E)
    for worker, times in (("a", 1), ("b", 2), ("c", 3)):
        adaptive.add(worker, SHARE * 16 * times, 16)
    adaptive.update({"a", "b", "c"}, none, {"a": 0, "b": 1, "c": 0})
    load_LE, evidence = known(adaptive)
    np.testing.assert_allclose(load_LE, SHARE * 6)
    assert evidence.halves_HLE is not None
    np.testing.assert_allclose(evidence.halves_HLE, [SHARE * 16 * 4, SHARE * 16 * 2])


def test_it_starts_from_known_rates_with_their_certainty() -> None:
    adaptive = AdaptiveLoad(L, E)
    adaptive.start({"a": SHARE, "b": SHARE}, 46.0, None)
    load_LE, evidence = known(adaptive)
    np.testing.assert_allclose(load_LE, SHARE * 2)
    assert evidence.tokens == pytest.approx(2 * 46)


def test_counts_that_are_not_traffic_are_discarded() -> None:
    adaptive = AdaptiveLoad(L, E)
    report(adaptive, SHARE * 30, 30)
    adaptive.discard("w")
    assert adaptive.known() is None
    report(adaptive, SHARE * 2 * 16, 16)
    np.testing.assert_allclose(known(adaptive).load_LE, SHARE * 2)


def test_with_one_half_neighbouring_cells_show_overdispersion() -> None:
    """Ten tokens of a request go to the same expert; a load that only drifts shows none."""
    rng, found = np.random.default_rng(1), {}
    for held in (1, 10):
        adaptive = AdaptiveLoad(L, E)
        for _ in range(40):
            counts_LE = held * np.stack([rng.multinomial(2000 // held, each) for each in SHARE])
            report(adaptive, counts_LE.astype(float), 16)
        found[held] = known(adaptive).evidence.overdispersion
    assert found[1] == 1
    assert found[10] > 4


def test_a_single_shift_is_not_overdispersion() -> None:
    adaptive = AdaptiveLoad(L, E)
    for share_LE in (SHARE, SHARE, SHARE[:, ::-1], SHARE[:, ::-1]):
        report(adaptive, share_LE * 16_000, 16)
    assert known(adaptive).evidence.overdispersion == 1


def staggered(workers: int, every: int, held: int, steps: int = 4800) -> Known:
    """A constant load; each worker reports its part every `every` steps, in its own phase.

    `held` tokens at a time go to the same expert.
    """
    rng, adaptive = np.random.default_rng(3), AdaptiveLoad(L, E)
    names = [f"w{n}" for n in range(workers)]
    per_step = 200 // held
    counts_WTLE = held * rng.poisson(per_step * SHARE, (workers, steps, L, E)).astype(float)
    sent = dict.fromkeys(names, 0)
    for step in range(1, steps + 1):
        for number, worker in enumerate(names):
            if step % every == number * every // workers % every:
                span_TLE = counts_WTLE[number, sent[worker] : step]
                adaptive.add(worker, span_TLE.sum(0), len(span_TLE))
                sent[worker] = step
        if step % 16 == 0:
            adaptive.update(set(names), none, None)
    return known(adaptive)


@pytest.mark.parametrize(("workers", "every"), [(1, 100), (1, 24), (8, 30), (8, 33), (8, 100)])
def test_a_report_does_not_predict_itself_wherever_cells_cut_it(workers: int, every: int) -> None:
    """So a constant load is averaged over many cells, and overdispersion is measured."""
    apart, together = (staggered(workers, every, held).evidence for held in (1, 10))
    assert apart.tokens > 0.3 * 4800 * 200 * workers
    assert apart.overdispersion == 1
    assert together.overdispersion > 3
