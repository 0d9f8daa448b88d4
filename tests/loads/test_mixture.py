"""The mixture of averages: how fast it forgets, and its effective tokens."""

from __future__ import annotations

import numpy as np
import pytest

from trimtab_server.loads.evidence import Evidence, overdispersion
from trimtab_server.loads.mixture import HALF_LIVES, LoadMixture

L, E = 3, 32


def counts(rng: np.random.Generator, share_LE: np.ndarray, tokens: int) -> np.ndarray:
    """Counts of two halves, float64 [2, L, E]."""
    return np.stack([rng.multinomial(tokens // 2, share_LE) for _ in range(2)]).astype(float)


def shares(rng: np.random.Generator) -> np.ndarray:
    share_LE = rng.lognormal(0, 0.65, (L, E))
    return np.asarray(share_LE / share_LE.sum(1, keepdims=True))


def test_a_new_mixture_is_empty() -> None:
    memory = LoadMixture(2, L, E)
    assert memory.cells == 0
    assert not memory.rate().any()
    evidence = memory.evidence()
    assert evidence.tokens_L.tolist() == [0] * L
    assert evidence.tokens == 0


@pytest.mark.parametrize("half_life", [0.5, 4.0, 64.0])
def test_one_half_life_is_the_exponential_average(half_life: float) -> None:
    rng = np.random.default_rng(0)
    seen = [rng.random((1, L, E)) for _ in range(40)]
    memory = LoadMixture(1, L, E, [half_life])
    for tokens in seen:
        memory.add(tokens, 1)
    weight = 2.0 ** (-np.arange(40)[::-1] / half_life)
    weight /= weight.sum()
    np.testing.assert_allclose(memory.rate()[0], np.tensordot(weight, seen, 1)[0])
    assert memory.cells == pytest.approx(1 / np.square(weight).sum())


def test_effective_tokens_predict_the_variance_of_the_rate() -> None:
    """Over many repetitions, the variance of a rate is its mean over the effective cells."""
    rng = np.random.default_rng(1)
    memory = LoadMixture(1, 1, 20_000, [3.0])
    for cells in (1, 4, 1, 2, 7, 1, 1):
        memory.add(rng.poisson(50.0 * cells, (1, 1, 20_000)).astype(float), cells)
    rate = memory.rate()
    assert rate.mean() == pytest.approx(50, rel=0.01)
    assert rate.var() == pytest.approx(50 / memory.cells, rel=0.05)
    assert memory.evidence().tokens_L[0] == pytest.approx(rate.sum() * memory.cells)


def test_at_constant_shares_it_averages_over_many_cells() -> None:
    rng = np.random.default_rng(2)
    share_LE, memory = shares(rng), LoadMixture(2, L, E)
    for _ in range(150):
        memory.add(counts(rng, share_LE, 2000), 1)
    assert memory.cells > 75
    error = np.abs(memory.rate().sum(0) / 2000 - share_LE).max() / share_LE.max()
    assert error < 0.05


def test_after_a_shift_it_follows_within_two_cells() -> None:
    rng = np.random.default_rng(3)
    before_LE, after_LE, memory = shares(rng), shares(rng), LoadMixture(2, L, E)
    for _ in range(100):
        memory.add(counts(rng, before_LE, 2000), 1)
    for _ in range(2):
        memory.add(counts(rng, after_LE, 2000), 1)
    rate_LE = memory.rate().sum(0) / 2000
    old, new = (np.abs(rate_LE - share_LE).sum() for share_LE in (before_LE, after_LE))
    assert new < old / 3
    assert memory.cells < 10, "the evidence shows that the rate is based on few cells"


def test_a_report_of_many_cells_does_not_predict_itself() -> None:
    """At constant shares long half-lives win, even if counts come once in 20 cells."""
    rng = np.random.default_rng(4)
    share_LE, memory = shares(rng), LoadMixture(2, L, E)
    for _ in range(30):
        memory.add(counts(rng, share_LE, 20 * 200), 20)
    assert memory.cells > 200
    assert memory.weights @ np.array(HALF_LIVES) > 50


@pytest.mark.parametrize("factor", [1, 5])
def test_the_halves_show_the_overdispersion_of_requests(factor: int) -> None:
    rng = np.random.default_rng(5)
    share_LE, memory = shares(rng), LoadMixture(2, L, E)
    for _ in range(50):
        memory.add(factor * counts(rng, share_LE, 2000 // factor), 1)
    assert memory.evidence().overdispersion == pytest.approx(factor, rel=0.25)


def test_the_halves_show_the_overdispersion_of_long_requests() -> None:
    """Each request routes by its own topic for 20 cells, which single cells hardly show."""
    rng = np.random.default_rng(6)
    share_LE, memory = shares(rng), LoadMixture(2, L, E)
    topics_HLE = np.ones((2, L, E))
    found = []
    for cell in range(200):
        if cell % 20 == 0:
            topics_HLE = share_LE * rng.lognormal(0, 0.3, (2, L, E))
            topics_HLE /= topics_HLE.sum(2, keepdims=True)
        tokens = np.stack([rng.multinomial(1000, topic_LE) for topic_LE in topics_HLE])
        memory.add(tokens.astype(float), 1)
        found.append(memory.evidence().overdispersion)
    assert np.mean(found[100:]) > 5


def test_halves_of_any_size_that_differ_by_chance_are_not_overdispersed() -> None:
    rng = np.random.default_rng(7)
    share_LE = shares(rng)
    found = [
        overdispersion(*(1.0 * rng.poisson(size * share_LE * E) for size in (900, 100)))
        for _ in range(50)
    ]
    assert np.mean(found) == pytest.approx(1.0, abs=0.08)
    assert min(found) >= 1


def test_layers_and_halves_without_load_do_not_count() -> None:
    none = np.zeros((L, E))
    assert overdispersion(none, none) == 1
    assert overdispersion(none, none + 5) == 1
    first, second = none.copy(), none.copy()
    first[1], second[1] = 10, 10
    assert overdispersion(first, second) == 1
    evidence = Evidence(np.array([0.0, 10.0, 0.0, 30.0]), 1.0)
    assert evidence.tokens == 20
