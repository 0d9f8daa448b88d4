"""Predictions of GPU loads, by how an engine divides tokens over replicas."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.engine import scene
from tests.engine.engines import Engine
from tests.engine.scene import UNTOUCHED
from tests.solver.strategies import placed_loads
from trimtab_protocol.placement import Placement
from trimtab_server.domain.placement import of_layers
from trimtab_server.engine.gpu_loads import MeasuredLoads, even_loads


def slots_of(placement, load_LE, shares):
    """What each slot processes if replicas share their expert in this proportion."""
    layers, slots = placement.phy2log.shape
    weight_LR = np.broadcast_to(shares, (layers, slots))
    total_LE = np.zeros((layers, placement.num_experts))
    index = np.arange(layers)[:, None], placement.phy2log
    np.add.at(total_LE, index, weight_LR)
    return load_LE[index] * weight_LR / total_LE[index]


@given(placed_loads(max_load=1000), st.integers(0, 2**32))
def test_what_was_measured_is_predicted_for_the_same_placement(problem, seed):
    phy2log, load, gpus = problem
    load_LE = np.array(load)
    placement = Placement.of(phy2log, load_LE.shape[1], gpus)
    shares = np.random.default_rng(seed).random(placement.phy2log.shape) + 0.01
    counts_LR = np.rint(slots_of(placement, load_LE * 10**6, shares)).astype(np.int64)
    predict = MeasuredLoads(placement, counts_LR)
    loads_LG = predict(placement, load_LE.astype(float)).numpy()
    expected = counts_LR.reshape(len(load), gpus, -1).sum(2) / 10**6
    np.testing.assert_allclose(loads_LG, expected, rtol=1e-4, atol=1e-4)
    some = np.arange(len(load))[::-1]
    of_some = predict(of_layers(placement, some), load_LE[some].astype(float), some).numpy()
    np.testing.assert_array_equal(of_some, loads_LG[some])


def test_experts_whose_slots_have_changed_are_shared_evenly():
    # Experts 0 and 1 have two slots each, of which the first takes everything.
    before = Placement.of([[0, 1, 2, 3, 0, 1]], 4, 3)
    predict = MeasuredLoads(before, np.array([[8, 6, 1, 1, 0, 0]]))
    load = np.array([[8.0, 6.0, 1.0, 1.0]])
    assert predict(before, load).tolist() == [[14, 2, 0]]
    # Expert 1 gives its second slot to expert 2; expert 0 is as it was.
    after = Placement.of([[0, 1, 2, 3, 0, 2]], 4, 3)
    assert predict(after, load).tolist() == [[14, 1.5, 0.5]]
    assert even_loads(after, load).tolist() == [[10, 1.5, 4.5]]


def test_experts_without_tokens_are_shared_evenly():
    placement = Placement.of([[0, 1, 0, 1]], 2, 2)
    predict = MeasuredLoads(placement, np.array([[0, 5, 0, 0]]))
    assert predict(placement, np.array([[4.0, 5.0]])).tolist() == [[7, 2]]


async def test_measured_slots_decide_where_even_shares_would_see_nothing(tmp_path):
    """By even shares, each GPU has the same; but every first replica takes all."""
    load = np.tile([20, 20, 20, 20, 10, 10, 10, 10], (3, 1)) * 10_000
    counts = slots_of(UNTOUCHED, load, np.r_[np.ones(8), np.zeros(4)]).astype(np.int64)
    async with scene.recorded(tmp_path, balance="active") as deployments:
        even, measured = (Engine(deployments, name=name) for name in ("even", "measured"))
        assert (await even.asks(load)).kept_because == "balanced"
        decision = (await measured.asks(load, counts)).logged.decision
        gpu_LG = counts.reshape(3, 4, 3).sum(2)
        imbalance = (gpu_LG.max(1) / gpu_LG.mean(1)).mean()
        assert decision.candidate.before == pytest.approx(imbalance)
        assert decision.reason.value != "balanced"
        assert measured.deployment.status.balance.predicted.mean == pytest.approx(imbalance)
        # Without counts of slots it is as before.
        assert (await measured.asks(load)).logged.decision.candidate.before == pytest.approx(1.0)


async def test_a_move_that_would_gain_only_by_even_shares_is_not_made(tmp_path):
    """GPU 1 would have 40 of 30 by even shares; but GPU 3 takes all tokens of expert 3."""
    load = np.tile([30, 15, 15, 20, 15, 15, 5, 5], (3, 1)) * 10_000
    counts = np.tile([10, 10, 10, 0, 15, 15, 5, 5, 20, 5, 5, 20], (3, 1)) * 10_000
    async with scene.recorded(tmp_path, balance="active") as deployments:
        even, measured = (Engine(deployments, name=name) for name in ("even", "measured"))
        assert (await even.asks(load)).logged.decision.moves
        answer = await measured.asks(load, counts)
        assert (answer.switch, answer.kept_because) == (None, "balanced")
