"""The floor under gains: the gain that noise alone would seem to give."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from trimtab_server.domain.balance import gpu_loads, imbalance
from trimtab_server.domain.topology import Topology
from trimtab_server.loads.evidence import Evidence
from trimtab_server.policy.floor import MARGIN, floor_of


def evidence(*tokens: float, overdispersion: float = 1.0) -> Evidence:
    return Evidence(np.array(tokens), overdispersion)


def test_it_follows_its_formulas() -> None:
    floor = floor_of(evidence(64_000.0), Topology(288, 32))
    assert floor.sigma_L[0] == pytest.approx(math.sqrt(32 / 64_000))
    assert floor.gain_L[0] == pytest.approx(MARGIN * 2 * math.log(32) * 32 / 64_000)
    assert floor.excess_L[0] == pytest.approx(math.sqrt(floor.gain_L[0]))


@pytest.mark.parametrize(
    ("changed", "distrust", "factor"),
    [
        (evidence(4000.0), 1.0, 0.25),
        (evidence(1000.0, overdispersion=3.0), 1.0, 3.0),
        (evidence(1000.0), 2.5, 2.5),
    ],
    ids=["four times the tokens", "three times the variance", "distrust"],
)
def test_it_falls_with_evidence_and_rises_with_its_variance_and_distrust(
    changed: Evidence, distrust: float, factor: float
) -> None:
    before = floor_of(evidence(1000.0), Topology(16, 8))
    after = floor_of(changed, Topology(16, 8), distrust)
    assert after.gain_L[0] == pytest.approx(factor * before.gain_L[0])


def test_with_groups_it_depends_on_the_gpus_and_tokens_of_a_node() -> None:
    whole = floor_of(evidence(4000.0), Topology(16, 8, 2, 4))
    node = floor_of(evidence(2000.0), Topology(8, 4))
    assert whole.gain_L[0] == pytest.approx(node.gain_L[0])


def test_layers_without_load_and_single_gpus_cannot_gain() -> None:
    floor = floor_of(evidence(0.0, 1e9), Topology(16, 8))
    assert floor.gain_L[0] == floor.excess_L[0] == math.inf
    alone = floor_of(evidence(100.0), Topology(8, 1))
    assert alone.gain_L[0] == alone.excess_L[0] == 0


@pytest.mark.parametrize(
    ("tokens", "precise"), [([0.0, 1e9], True), ([0.0] * 2, False), ([16.0], False), ([16e3], True)]
)
def test_it_takes_tokens_to_be_precise(tokens: list[float], *, precise: bool) -> None:
    assert floor_of(evidence(*tokens), Topology(8, 4)).precise is precise


@pytest.mark.parametrize(("gpus", "tokens"), [(8, 500), (32, 4000), (72, 20_000)])
def test_simulated_noise_is_rarely_above_it(gpus: int, tokens: int) -> None:
    """For equal GPUs noise is below the floor, closer to it with more GPUs, and rarely above."""
    rng = np.random.default_rng(gpus)
    counts_LE = rng.multinomial(tokens, np.full(4 * gpus, 1 / (4 * gpus)), 2000)
    placement_LR = torch.arange(4 * gpus).expand(2000, -1)
    loads_LG = gpu_loads(placement_LR, torch.from_numpy(counts_LE).double(), gpus)
    excess_L = imbalance(loads_LG).numpy() - 1
    floor = floor_of(evidence(float(tokens)), Topology(4 * gpus, gpus)).excess_L[0]
    assert 0.5 * floor < excess_L.mean() < floor
    assert (excess_L > floor).mean() < 0.15
    assert (excess_L > 2 * floor).mean() < 1e-3


def loads(rng: np.random.Generator, gpus: int, tokens: int, layers: int) -> np.ndarray:
    """Loads of equal GPUs with noise, float64 [L, G]."""
    return rng.multinomial(tokens, np.full(gpus, 1 / gpus), layers).astype(float)


@pytest.mark.parametrize(("gpus", "layers"), [(4, 1), (32, 4), (16, 24)])
def test_noise_alone_rarely_exceeds_it(gpus: int, layers: int) -> None:
    """A layer does in about one of a hundred trials, since chi-squared is not quite normal."""
    rng = np.random.default_rng(gpus)
    tokens = 200 * gpus
    floor = floor_of(evidence(*[float(tokens)] * layers), Topology(gpus, gpus))
    looks = [floor.exceeded(loads(rng, gpus, tokens, layers)) for _ in range(1000)]
    assert np.mean(looks) < 0.02


def test_a_layer_out_of_balance_exceeds_it_alone() -> None:
    rng = np.random.default_rng(0)
    loads_LG = loads(rng, 32, 32_000, 3)
    loads_LG[1, 5] *= 1.5
    floor = floor_of(evidence(32_000.0, 32_000.0, 0.0), Topology(32, 32))
    assert floor.exceeded(loads_LG).tolist() == [False, True, False]


def test_many_layers_slightly_out_of_balance_exceed_it_together() -> None:
    rng = np.random.default_rng(1)
    loads_LG = loads(rng, 8, 8000, 60) * rng.normal(1.0, 0.03, (60, 8))
    known = evidence(*[8000.0] * 60)
    floor = floor_of(known, Topology(8, 8))
    assert floor.exceeded(loads_LG).all()
    alone = [floor.of(np.array([layer])).exceeded(loads_LG[[layer]])[0] for layer in range(60)]
    assert np.mean(alone) < 0.3


@pytest.mark.parametrize("gpus", [2, 8], ids=["one GPU a node", "four"])
def test_imbalance_between_nodes_is_a_signal_too(gpus: int) -> None:
    """Groups stay on their nodes, but a new plan may assign them to others."""
    each = 8000.0 / gpus
    loads_LG = np.repeat([[1.1 * each, 0.9 * each]], gpus // 2, axis=1)
    floor = floor_of(evidence(8000.0), Topology(2 * gpus, gpus, 2, 4))
    assert floor.exceeded(loads_LG)[0]
    assert not floor.exceeded(np.full((1, gpus), each))[0]


def test_the_gpus_of_a_node_are_compared_with_each_other() -> None:
    """An imbalance that is small among all GPUs is large among those of one node."""
    loads_LG = np.array([[1000.0, 1000, 1000, 1000, 1070, 930, 1070, 930]])
    alone = floor_of(evidence(80_000.0), Topology(8, 4)).exceeded(loads_LG[:, 4:])
    assert floor_of(evidence(160_000.0), Topology(16, 8, 2, 4)).exceeded(loads_LG)[0] == alone[0]


def test_layers_without_load_and_single_gpus_exceed_nothing() -> None:
    floor = floor_of(evidence(0.0, 4000.0), Topology(4, 4))
    assert floor.exceeded(np.array([[0.0] * 4, [4000.0, 0, 0, 0]])).tolist() == [False, True]
    assert not floor_of(evidence(100.0), Topology(8, 1)).exceeded(np.array([[100.0]]))[0]


def test_an_obvious_imbalance_needs_little_evidence() -> None:
    floor = floor_of(evidence(2000.0), Topology(4, 4))
    assert not floor.obvious(np.array([1.0 + floor.excess_L[0]]))[0]
    assert floor.obvious(np.array([1.6]))[0]
