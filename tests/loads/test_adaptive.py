"""The load of a deployment, remembered."""

from __future__ import annotations

import numpy as np
import pytest

from trimtab_server.loads.adaptive import Adaptive
from trimtab_server.loads.estimates import Loads
from trimtab_server.loads.evidence import Known

L, E = 2, 16
RNG = np.random.default_rng(0)
SHARE = RNG.dirichlet(np.ones(E), L)


def none() -> dict[str, Loads]:
    return {}


def known(adaptive: Adaptive) -> Known:
    found = adaptive.known()
    assert found is not None
    return found


def test_before_a_cell_is_complete_nothing_is_known() -> None:
    adaptive = Adaptive(L, E)
    adaptive.add("w", SHARE * 15, 15)
    adaptive.remember({"w"}, none, None)
    assert adaptive.known() is None


@pytest.mark.parametrize("steps", [1, 4, 16, 50, 400])
def test_how_often_it_is_reported_changes_little(steps: int) -> None:
    """The same counts of 4,000 steps: the same load, and most of it is remembered."""
    counts_TLE = np.random.default_rng(2).poisson(SHARE * 100, (4000, L, E)).astype(float)
    adaptive = Adaptive(L, E)
    for span_TLE in np.split(counts_TLE, 4000 // steps):
        adaptive.add("w", span_TLE.sum(0), steps)
        adaptive.remember({"w"}, none, None)
    load_LE, evidence = known(adaptive)
    assert np.abs(load_LE - counts_TLE.mean(0)).sum() < 0.03 * L * 100
    assert 0.05 * 4000 * 100 < evidence.tokens < 1.05 * 4000 * 100


def test_workers_rates_add_up_and_halves_are_of_whole_workers() -> None:
    adaptive = Adaptive(L, E)
    for worker, times in (("a", 1), ("b", 2), ("c", 3)):
        adaptive.add(worker, SHARE * 16 * times, 16)
    adaptive.remember({"a", "b", "c"}, none, {"a": 0, "b": 1, "c": 0})
    load_LE, evidence = known(adaptive)
    np.testing.assert_allclose(load_LE, SHARE * 6)
    assert evidence.halves_HLE is not None
    np.testing.assert_allclose(evidence.halves_HLE, [SHARE * 16 * 4, SHARE * 16 * 2])


def test_it_begins_with_what_was_known_and_no_surer_than_that_was() -> None:
    adaptive = Adaptive(L, E)
    adaptive.start({"a": SHARE, "b": SHARE}, 46.0, None)
    load_LE, evidence = known(adaptive)
    np.testing.assert_allclose(load_LE, SHARE * 2)
    assert evidence.tokens == pytest.approx(2 * 46)


def test_what_was_no_traffic_is_forgotten() -> None:
    adaptive = Adaptive(L, E)
    adaptive.add("w", SHARE * 30, 30)
    adaptive.remember({"w"}, none, None)
    adaptive.discard("w")
    assert adaptive.known() is None
    adaptive.add("w", SHARE * 2 * 16, 16)
    adaptive.remember({"w"}, none, None)
    np.testing.assert_allclose(known(adaptive).load_LE, SHARE * 2)


def test_in_one_half_neighbouring_cells_show_how_requests_hold_together() -> None:
    """Ten tokens of a request go to the same expert; a load that only drifts does not show."""
    rng, found = np.random.default_rng(1), {}
    for held in (1, 10):
        adaptive = Adaptive(L, E)
        for _ in range(40):
            counts_LE = held * np.stack([rng.multinomial(2000 // held, each) for each in SHARE])
            adaptive.add("w", counts_LE.astype(float), 16)
            adaptive.remember({"w"}, none, None)
        found[held] = known(adaptive).evidence.overdispersion
    assert found[1] == 1
    assert found[10] > 4


def test_a_single_shift_is_no_overdispersion() -> None:
    adaptive = Adaptive(L, E)
    for share_LE in (SHARE, SHARE, SHARE[:, ::-1], SHARE[:, ::-1]):
        adaptive.add("w", share_LE * 16_000, 16)
        adaptive.remember({"w"}, none, None)
    assert known(adaptive).evidence.overdispersion == 1
