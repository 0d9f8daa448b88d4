"""A full plan moves experts only in layers that it balances better."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given

from tests.solver.strategies import placed_loads
from trimtab_server.domain.topology import Topology
from trimtab_server.solver import place, rebalance_phy2log

UNTOUCHED = torch.arange(12).repeat(3, 1) % 8
TOPOLOGY = Topology(12, 4)


def replanned(backend, load, current=UNTOUCHED, topology=TOPOLOGY):
    return place(load, topology, current=current, backend=backend)


@pytest.mark.parametrize("load", [[1.0] * 8, [0.0] * 8, [5.0, 3, 1, 7, 4, 4, 6, 2]], ids=str)
def test_a_layer_that_cannot_gain_stays(backend, load):
    current = torch.arange(8).unsqueeze(0)
    plan = replanned(backend, [load], current, Topology(8, 4))
    assert plan.before.imbalance.item() == pytest.approx(plan.after.bound.item())
    assert torch.equal(plan.phy2log, current)
    assert len(plan.moves) == 0


def test_layers_without_load_stay_when_others_move(backend):
    load = np.zeros((3, 8))
    load[1] = np.random.default_rng(0).gamma(0.5, 1.0, 8)
    plan = replanned(backend, load)
    assert plan.moves.per_layer(3).tolist()[::2] == [0, 0]
    assert plan.after.imbalance[1] < plan.before.imbalance[1]


def test_if_one_layer_has_shifted_the_others_stay(backend):
    rng = np.random.default_rng(1)
    load = rng.gamma(0.5, 1.0, (3, 8))
    planned = place(load, TOPOLOGY, backend=backend).phy2log
    load[2] = rng.gamma(0.5, 1.0, 8)
    plan = replanned(backend, load, planned)
    moves = plan.moves.per_layer(3).tolist()
    assert moves[:2] == [0, 0]
    assert moves[2] > 0


def test_the_engines_policy_does_the_same(backend):
    kept = rebalance_phy2log([[0.0] * 8] * 3, 12, 1, 1, 4, UNTOUCHED, budget=None, backend=backend)
    assert torch.equal(kept, UNTOUCHED)


def test_a_layer_whose_groups_are_spread_over_nodes_does_not_stay(backend):
    """Groups of two experts on two nodes: the layer moves although it is balanced."""
    topology, load = Topology(8, 4, 2, 4), [[1.0] * 8] * 2
    apart, together = [0, 2, 4, 6, 1, 3, 5, 7], [0, 1, 2, 3, 4, 5, 6, 7]
    plan = replanned(backend, load, [apart, together], topology)
    assert plan.phy2log[1].tolist() == together
    nodes_of_0 = {plan.phy2log[0].tolist().index(expert) // 4 for expert in (0, 1)}
    assert len(nodes_of_0) == 1


@given(placed_loads(max_load=10**9))
def test_no_layer_is_balanced_worse_or_moved_for_nothing(backend, problem):
    phy2log, load, gpus = problem
    plan = place(load, Topology(len(phy2log[0]), gpus), current=phy2log, backend=backend)
    before_L, after_L = plan.before.imbalance, plan.after.imbalance
    assert (after_L <= before_L).all()
    assert (plan.moves.per_layer(len(load))[after_L == before_L] == 0).all()
