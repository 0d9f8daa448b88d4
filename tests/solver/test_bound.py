"""The bound of an evaluation: no placement is below it, and some placements reach it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracles.placing import placements
from tests.solver.strategies import AMOUNTS, SEEDS, amounts, topologies
from trimtab_server.domain.topology import Topology
from trimtab_server.solver import evaluate, improve, place, settings_for
from trimtab_server.solver import pairing as pairing_module
from trimtab_server.solver.backends.reference.backend import Reference

REFERENCE = Reference()
ROUNDING = 1e-12
# Sums of subnormal numbers are too coarse to be compared.
KINDS = st.sampled_from([kind for kind in AMOUNTS if kind not in ("subnormal", "any size")])

# Topologies with numbers of experts. With groups, an even share of the heaviest node counts.
TINY = [
    (Topology(4, 2), 3),
    (Topology(5, 5), 3),
    (Topology(6, 2), 4),
    (Topology(6, 3), 3),
    (Topology(6, 3), 2),
    (Topology(8, 2), 2),
    (Topology(8, 4), 3),
    (Topology(4, 2, 2, 2), 4),
    (Topology(4, 4, 2, 2), 2),
    (Topology(6, 2, 2, 4), 4),
    (Topology(6, 2, 2, 2), 4),
    (Topology(8, 4, 2, 4), 4),
]


@given(st.sampled_from(TINY), KINDS, SEEDS)
@settings(max_examples=100)
def test_no_placement_is_below_the_bound(backend, where, kind, seed):
    topology, experts = where
    load_1E = amounts(kind, 1, experts, seed)
    plan_LR = torch.tensor(placements(topology, experts))
    result = evaluate(
        plan_LR,
        load_1E.expand(len(plan_LR), -1),
        topology.num_gpus,
        num_nodes=topology.num_nodes,
        num_groups=topology.num_groups,
        backend=backend,
    )
    assert (result.bound == result.bound[0]).all()
    assert (result.imbalance >= result.bound - ROUNDING).all()
    assert (result.bound >= 1).all()


TIGHT = {
    "equal loads": (Topology(8, 4), [1, 1, 1, 1], 1.0),
    "no load": (Topology(4, 2), [0, 0, 0], 1.0),
    # One further slot: 100 becomes 50 twice, where the mean GPU has 20.
    "a hot expert": (Topology(5, 5), [100, 0, 0, 0], 2.5),
    "a hot expert at the replica cap": (Topology(6, 2), [100, 0, 0], 1.0),
    # The expert with 60 gets the further slot: 30 each, where the mean is 18.
    "a replica above the mean": (Topology(5, 5), [60, 10, 10, 10], 30 / 18),
    # Groups of 3 + 3, 1 + 1, 1 + 1, 1 + 1 on 2 nodes: the first with any other has 8 on 2 GPUs.
    "the heaviest node": (Topology(8, 4, 2, 4), [3, 3, 1, 1, 1, 1, 1, 1], 4 / 3),
    # The only expert with load may lie on the two GPUs of one node.
    "a hot expert on one node": (Topology(8, 4, 2, 2), [100, 0, 0, 0], 2.0),
}


@pytest.mark.parametrize("name", TIGHT)
def test_a_placement_reaches_the_bound_where(backend, name):
    topology, load, expected = TIGHT[name]
    plan = place([load], topology, backend=backend)
    assert plan.after.bound.tolist() == pytest.approx([expected], abs=ROUNDING)
    assert plan.after.imbalance.tolist() == pytest.approx([expected], abs=ROUNDING)


def test_the_bound_with_groups_is_for_placements_that_keep_groups():
    load = [[3.0, 3, 1, 1, 1, 1, 1, 1]]
    plan = [[0, 2, 1, 3, 4, 5, 6, 7]]
    spread, kept = (
        evaluate(plan, load, 4, num_nodes=nodes, num_groups=groups)
        for nodes, groups in ((1, 1), (2, 4))
    )
    assert spread.bound.tolist() == [1.0]
    assert kept.bound.tolist() == pytest.approx([4 / 3])
    assert evaluate(plan, load, 4, num_nodes=2).bound.tolist() == [1.0], "without groups"


@given(KINDS, SEEDS, topologies(), st.sampled_from(["fast", "balanced"]))
@settings(max_examples=80)
def test_no_plan_is_below_the_bound_and_all_backends_agree(backend, kind, seed, where, effort):
    topology, experts = where
    load_LE = amounts(kind, 2, experts, seed)
    plan = place(load_LE, topology, settings=settings_for(effort), backend=backend)
    assert (plan.after.imbalance >= plan.after.bound - ROUNDING).all()
    again = place(load_LE, topology, current=plan.phy2log, backend=backend)
    assert torch.equal(again.before.bound, plan.after.bound)
    assert torch.equal(REFERENCE.bound(load_LE, topology), plan.after.bound)


def test_improving_stays_above_the_bound(backend):
    load_LE = amounts("skewed", 4, 32, 0)
    start_LR = place(load_LE.flip(0), Topology(32, 16), backend=backend).phy2log
    new_LR, moves = improve(start_LR, load_LE, 16, min_gain=0.0, backend=backend)
    assert len(moves) > 0
    result = evaluate(new_LR, load_LE, 16, backend=backend)
    assert (result.imbalance >= result.bound - ROUNDING).all()
    assert (result.bound > 1).any()


@given(SEEDS, st.sampled_from(["ties", "counts", "skewed", "one hot"]))
@settings(max_examples=40)
def test_with_too_many_pairings_the_bound_is_lower_but_valid(seed, kind):
    load_LE, topology = amounts(kind, 2, 16, seed), Topology(16, 4, 4, 8)
    exact_L = REFERENCE.bound(load_LE, topology)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairing_module, "pairings", lambda *_: None)
        rough_L = REFERENCE.bound(load_LE, topology)
    assert (rough_L <= exact_L + ROUNDING).all()


def test_with_too_many_pairings_the_heaviest_group_has_the_lightest_others(backend):
    load = torch.ones(1, 16)
    load[0, 5] = 9.0
    # 9 + 3 * 1 on a node, where the mean is 24 / 4.
    plan = place(load, Topology(16, 4, 4, 16), backend=backend)
    assert plan.after.bound.tolist() == pytest.approx([2.0], abs=ROUNDING)
