"""The cpu backend gives the reference's answers to the last bit, whatever the shape."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.bench.loads import drifted, realistic
from tests.solver.agreement import assert_same
from tests.solver.strategies import KINDS, SEEDS, amounts, any_settings, starts, topologies
from trimtab_server.domain.topology import Topology
from trimtab_server.solver import Budget, Settings, balanced_packing, settings_for
from trimtab_server.solver.backends.backend import replica_cap
from trimtab_server.solver.backends.cpu.backend import Cpu
from trimtab_server.solver.backends.cpu.improve import _FIRST_ROOM
from trimtab_server.solver.backends.reference.backend import Reference
from trimtab_server.solver.backends.reference.lpt import lpt
from trimtab_server.solver.backends.reference.quantise import quantise
from trimtab_server.solver.backends.reference.separate import separate
from trimtab_server.solver.pairing import pairings

CPU, REFERENCE = Cpu(), Reference()
MOVES = st.sampled_from([None, 0, 1, 2, 3, 5])


@given(KINDS, SEEDS, st.integers(1, 3), st.integers(1, 50), st.integers(0, 60), st.integers(1, 9))
@settings(max_examples=150)
def test_replicates_as_the_reference_does(kind, seed, rows, experts, extra, cap):
    load_XE, replicas = amounts(kind, rows, experts, seed), experts + extra
    most = replica_cap(replicas, experts, cap)
    assert_same(
        CPU.replicate(load_XE, replicas, most), REFERENCE.replicate(load_XE, replicas, most)
    )


@st.composite
def groups_of_items(draw: st.DrawFn, rows: int, items: int) -> torch.Tensor | None:
    """No groups, or between one group for all items and about one for each item."""
    count = draw(st.sampled_from([0, 1, 2, (items + 1) // 2, items]))
    if count == 0:
        return None
    generator = torch.Generator().manual_seed(draw(SEEDS))
    return torch.randint(0, min(count, items), (rows, items), generator=generator)


@given(
    KINDS, SEEDS, st.integers(1, 3), st.integers(1, 9), st.integers(1, 6), any_settings(), st.data()
)
@settings(max_examples=300)
def test_packs_as_the_reference_does(kind, seed, rows, packs, slots, how, data):
    weight_XI = amounts(kind, rows, packs * slots, seed)
    group_XI = data.draw(groups_of_items(rows, packs * slots))
    assert_same(
        CPU.pack(weight_XI, packs, group_XI, how), REFERENCE.pack(weight_XI, packs, group_XI, how)
    )


@pytest.mark.parametrize("iterations", [0, None])
def test_separates_groups_that_lpt_doubles_as_the_reference_does(iterations):
    weight_XI, packs = amounts("skewed", 64, 12, 21), 3
    group_XI = torch.randint(0, 5, (64, 12), generator=torch.Generator().manual_seed(22))
    whole_XI = quantise(weight_XI)
    dealt = lpt(whole_XI, whole_XI, packs, group_XI)
    changed = (separate(dealt, whole_XI, group_XI) != dealt).flatten(1).any(1)
    assert changed.float().mean() > 0.3, "these rows must be dead ends"
    how = Settings(2, iterations, 3)
    assert_same(
        CPU.pack(weight_XI, packs, group_XI, how), REFERENCE.pack(weight_XI, packs, group_XI, how)
    )


@given(
    SEEDS, st.sampled_from([torch.float32, torch.float16, torch.int64, torch.int32, torch.uint8])
)
@settings(max_examples=40)
def test_packs_weights_of_any_dtype_as_the_reference_does(seed, dtype):
    weight_XI = (amounts("fractions", 2, 20, seed) * 255).to(dtype)
    packed = [balanced_packing(weight_XI, 5, restarts=2, backend=name) for name in (CPU, REFERENCE)]
    assert_same(*packed)


@pytest.mark.parametrize("kind", ["ties", "counts"])
@pytest.mark.parametrize("grouped", [False, True])
def test_packs_with_a_wide_window_as_the_reference_does(kind, grouped):
    packs, slots = 77, 3
    weight_XI = amounts(kind, 2, packs * slots, 1)
    group_XI = torch.arange(packs * slots).repeat(2, 1) // 4 if grouped else None
    how = Settings(64, 60, 2)
    assert_same(
        CPU.pack(weight_XI, packs, group_XI, how), REFERENCE.pack(weight_XI, packs, group_XI, how)
    )


@given(KINDS, SEEDS, st.integers(1, 3), topologies(), any_settings())
@settings(max_examples=250)
def test_plans_as_the_reference_does(kind, seed, layers, where, how):
    topology, experts = where
    load_LE = amounts(kind, layers, experts, seed)
    assert_same(CPU.plan(load_LE, topology, how), REFERENCE.plan(load_LE, topology, how))


ODD_PLANS = {
    "one GPU": (9, Topology(12, 1)),
    "one slot on each GPU": (9, Topology(12, 12)),
    "no further replicas": (24, Topology(24, 6)),
    "a hot expert at the replica cap": (5, Topology(20, 4)),
    "8 groups on 4 nodes": (32, Topology(48, 8, 4, 8)),
    "too many pairings": (32, Topology(48, 8, 4, 16)),
    "a group on each node": (24, Topology(30, 6, 3, 3)),
    "a GPU on each node": (24, Topology(32, 4, 4, 8)),
}


@pytest.mark.parametrize("name", ODD_PLANS)
@pytest.mark.parametrize("kind", ["ties", "counts", "one hot"])
def test_plans_odd_topologies_as_the_reference_does(name, kind):
    experts, topology = ODD_PLANS[name]
    load_LE, how = amounts(kind, 5, experts, 3), Settings(5, None, 3, seed=9)
    assert_same(CPU.plan(load_LE, topology, how), REFERENCE.plan(load_LE, topology, how))


def test_odd_topologies_are_what_their_names_say():
    assert pairings(8, 4) is not None
    assert pairings(16, 4) is None
    load_LE = amounts("one hot", 1, 5, 0)
    hot, gpus = int(load_LE.argmax()), 4
    plan_R = REFERENCE.plan(load_LE, ODD_PLANS["a hot expert at the replica cap"][1], Settings())[0]
    assert int((plan_R == hot).sum()) == gpus


@given(
    KINDS,
    SEEDS,
    st.integers(1, 3),
    topologies(),
    st.builds(
        Budget,
        max_moves_per_layer=MOVES,
        max_moves=MOVES,
        min_gain=st.sampled_from([0.0, 1e-3, 0.1]),
        cross_node_cost=st.sampled_from([1.0, 1.1, 3.7]),
    ),
    st.integers(1, 9),
)
@settings(max_examples=200)
def test_improves_as_the_reference_does(kind, seed, layers, where, budget, top_k):
    topology, experts = where
    load_LE = amounts(kind, layers, experts, seed)
    start_LR = starts(layers, experts, topology.num_replicas, seed)
    problem = start_LR, load_LE, topology, budget, top_k
    assert_same(CPU.improve(*problem), REFERENCE.improve(*problem))


def test_ties_between_swaps_go_to_the_lowest_slot_of_the_heavy_gpu():
    # GPU 2 is heaviest, by 2. Giving away 1 balances it: 3 for the 2 of GPU 1 or, from a
    # later slot, 2 for a 1 of GPU 0, which has the lower number.
    load_LE = torch.tensor([[4.0, 1, 1, 2, 1, 3, 3, 3, 2]], dtype=torch.float64)
    problem = torch.arange(9).view(1, 9), load_LE, Topology(9, 3), Budget(2, None, 0.0), 4
    expected = [[0, 1, 2, 6, 4, 5, 3, 7, 8]]
    assert REFERENCE.improve(*problem).phy2log_LR.tolist() == expected
    assert CPU.improve(*problem).phy2log_LR.tolist() == expected


@pytest.mark.parametrize("budget", [Budget(min_gain=0.0), Budget(None, 50, 0.0)], ids=str)
def test_takes_as_many_steps_as_the_reference_does(budget):
    # Sorted, so that the heaviest experts lie together, far from balanced.
    load_LE = amounts("skewed", 3, 96, 4).sort(1).values
    load_LE[1] = 1.0  # One layer is balanced already.
    start_LR = starts(3, 96, 128, 4).sort(1).values
    topology = Topology(128, 16)
    expected = REFERENCE.improve(start_LR, load_LE, topology, budget, 4)
    assert expected.iterations > 2 * _FIRST_ROOM
    assert_same(CPU.improve(start_LR, load_LE, topology, budget, 4), expected)


@given(KINDS, SEEDS, st.integers(1, 3), topologies())
@settings(max_examples=150)
def test_weighs_gpus_as_the_reference_does(kind, seed, layers, where):
    topology, experts = where
    load_LE = amounts(kind, layers, experts, seed)
    plan_LR = starts(layers, experts, topology.num_replicas, seed)
    problem = plan_LR, load_LE, topology.num_gpus
    assert_same(CPU.balance(*problem), REFERENCE.balance(*problem))


@given(KINDS, SEEDS, st.integers(1, 3), topologies())
@settings(max_examples=150)
def test_bounds_as_the_reference_does(kind, seed, layers, where):
    topology, experts = where
    problem = amounts(kind, layers, experts, seed), topology
    assert torch.equal(CPU.bound(*problem), REFERENCE.bound(*problem))


@pytest.mark.parametrize("name", ODD_PLANS)
@pytest.mark.parametrize("kind", ["ties", "counts", "one hot"])
def test_bounds_odd_topologies_as_the_reference_does(name, kind):
    experts, topology = ODD_PLANS[name]
    problem = amounts(kind, 5, experts, 3), topology
    assert torch.equal(CPU.bound(*problem), REFERENCE.bound(*problem))


@given(SEEDS, st.integers(1, 3), topologies(), st.booleans())
@settings(max_examples=150)
def test_counts_moves_as_the_reference_does(seed, layers, where, same):
    topology, experts = where
    old_LR = starts(layers, experts, topology.num_replicas, seed)
    new_LR = old_LR.clone() if same else starts(layers, experts, topology.num_replicas, seed + 1)
    problem = old_LR, new_LR, experts, topology.num_gpus
    assert_same(CPU.moves(*problem), REFERENCE.moves(*problem))


@given(SEEDS, st.integers(1, 3), topologies(), st.booleans())
@settings(max_examples=150)
def test_aligns_as_the_reference_does(seed, layers, where, near):
    topology, experts = where
    old_LR = starts(layers, experts, topology.num_replicas, seed)
    # Another placement, or the same with its GPUs and slots in another order.
    new_LR = old_LR.flip(1) if near else starts(layers, experts, topology.num_replicas, seed + 1)
    problem = new_LR, old_LR, experts, topology.num_gpus, topology.num_nodes
    assert torch.equal(CPU.align(*problem), REFERENCE.align(*problem))


@given(SEEDS, st.integers(1, 3), topologies())
@settings(max_examples=150)
def test_maps_slots_as_the_reference_does(seed, layers, where):
    topology, experts = where
    problem = starts(layers, experts, topology.num_replicas, seed), experts
    assert_same(CPU.slot_maps(*problem), REFERENCE.slot_maps(*problem))


@pytest.mark.parametrize("nodes", [1, 4])
@pytest.mark.parametrize(("replicas", "gpus"), [(288, 32), (288, 72), (320, 64)])
def test_plans_real_sizes_as_the_reference_does(replicas, gpus, nodes):
    load_LE = torch.from_numpy(realistic(6))
    topology = Topology(replicas, gpus, nodes, 8 if nodes > 1 else 1)
    assert torch.equal(CPU.bound(load_LE, topology), REFERENCE.bound(load_LE, topology))
    for how in (settings_for("fast"), settings_for("balanced")):
        assert_same(CPU.plan(load_LE, topology, how), REFERENCE.plan(load_LE, topology, how))


@pytest.mark.parametrize("max_moves", [24, None])
@pytest.mark.parametrize(("replicas", "gpus"), [(288, 32), (288, 72), (320, 64)])
def test_improves_real_sizes_as_the_reference_does(replicas, gpus, max_moves):
    before_LE, now_LE = (torch.from_numpy(load) for load in drifted(4, 256))
    start_LR = CPU.plan(before_LE, Topology(replicas, gpus), settings_for("fast")).phy2log_LR
    problem = start_LR, now_LE, Topology(replicas, gpus, 4), Budget(8, max_moves, 1e-3, 2.0), 4
    expected = REFERENCE.improve(*problem)
    assert expected.iterations > 0
    assert_same(CPU.improve(*problem), expected)
    moves = (start_LR, expected.phy2log_LR, 256, gpus)
    assert_same(CPU.moves(*moves), REFERENCE.moves(*moves))
    balance = (expected.phy2log_LR, now_LE, gpus)
    assert_same(CPU.balance(*balance), REFERENCE.balance(*balance))
    assert_same(CPU.slot_maps(start_LR, 256), REFERENCE.slot_maps(start_LR, 256))
    for num_nodes in (1, 4):
        renaming = (*moves, num_nodes)
        assert torch.equal(CPU.align(*renaming), REFERENCE.align(*renaming))
