"""Trust in the promised gains of switches."""

from __future__ import annotations

import numpy as np
import pytest

from trimtab_server.policy.trust import Judgement, Trust, squared_fall


def judged(*shares: float, noise: float = 0.0) -> Trust:
    trust = Trust()
    for share in shares:
        trust.judge(Judgement(100, 64, 0.02, 0.02 * share), noise)
    return trust


@pytest.mark.parametrize(
    "trust",
    [
        Trust(),
        judged(*[0.6] * 50),
        judged(0.0),
        judged(-5.0),
        judged(*[0.0] * 50, *[1.0] * 10),
        judged(*[0.0] * 50, noise=0.2),
    ],
    ids=["new", "half is enough", "one broken", "one badly", "it returns", "noise explains it"],
)
def test_what_does_not_reduce_trust(trust: Trust) -> None:
    assert trust.distrust == 1


def test_a_switch_cannot_keep_more_than_its_promise() -> None:
    assert judged(*[1.5] * 50).kept == pytest.approx(1)


def test_broken_promises_raise_the_needed_gain_at_most_fourfold() -> None:
    found = [judged(*[-1.0] * times).distrust for times in (1, 4, 8, 50)]
    assert found == sorted(found)
    assert found[1] > 1
    assert found[-1] == 4


def test_the_fall_is_of_squared_loads_with_mean_one() -> None:
    before_LG = np.array([[3.0, 1.0], [0.0, 0.0], [20.0, 20.0]])
    after_LG = np.array([[2.0, 2.0], [0.0, 0.0], [20.0, 20.0]])
    # 1.5**2 + 0.5**2 is 2.5 before and 2 after the switch, in one of two layers with load.
    assert squared_fall(before_LG, after_LG) == pytest.approx(0.25)
    assert squared_fall(before_LG[1:2], after_LG[1:2]) == 0


def test_a_judgement_has_no_bias_since_noise_adds_the_same_to_both_sums() -> None:
    """This holds on average over many judgements; a single one is rough."""
    rng = np.random.default_rng(0)
    share_G = np.array([0.3, 0.3, 0.2, 0.2])
    counts_NG = rng.multinomial(400, share_G, 4000).astype(float)
    # A switch that exchanges half of the load between GPU 0, which is heavy, and GPU 2.
    swapped_NG = counts_NG.copy()
    moved_N = rng.binomial(counts_NG[:, 0].astype(int), 1 / 6)
    swapped_NG[:, 0] -= moved_N
    swapped_NG[:, 2] += moved_N
    true = np.square(4 * share_G).sum() - np.square(4 * np.array([0.25, 0.3, 0.25, 0.2])).sum()
    found = np.mean(
        [squared_fall(a[None], b[None]) for a, b in zip(counts_NG, swapped_NG, strict=True)]
    )
    assert found == pytest.approx(true, rel=0.1)
