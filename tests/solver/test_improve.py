"""improve makes the best few moves, and no layer gets worse."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracles import improving as oracle
from tests.oracles.packing import quantised
from tests.solver.strategies import placed_loads, shared_layers
from trimtab_server.domain.errors import InvalidArgumentError
from trimtab_server.solver import evaluate, improve, rebalance_experts
from trimtab_server.solver.backends.reference.align import keep_slots

BACKENDS = ("reference", "cpu")
MOVES = st.sampled_from([None, 0, 1, 2, 3, 4])
MIN_GAINS = st.sampled_from([0.0, 2.0**-10, 2.0**-4])


@pytest.mark.slow
@given(placed_loads(), MOVES, MIN_GAINS, st.integers(1, 9))
@settings(max_examples=100)
def test_takes_exactly_the_steps_of_the_brute_force_oracle(problem, budget, min_gain, top_k):
    phy2log, load, gpus = problem
    how = {"max_moves_per_layer": budget, "min_gain": min_gain, "top_k": top_k}
    found = {each: improve(phy2log, load, gpus, **how, backend=each)[0] for each in BACKENDS}
    for layer, start in enumerate(phy2log):
        weights = quantised(load[layer])
        steps = oracle.Problem(start, weights, gpus, budget, Fraction(min_gain), top_k)
        expected = oracle.held(kept(oracle.path(steps), load[layer], gpus), gpus)
        for backend, new in found.items():
            assert oracle.held(new[layer].tolist(), gpus) == expected, backend


@pytest.mark.slow
@given(shared_layers(), MOVES, MIN_GAINS, st.integers(1, 4), st.sampled_from([1.0, 1.5, 4.0]))
@settings(max_examples=100)
def test_takes_the_steps_of_the_oracle_until_there_are_none_where_gpus_share_experts(
    layer, budget, min_gain, top_k, cross_node_cost
):
    start, load, topology = layer
    gpus, nodes, groups = topology.num_gpus, topology.num_nodes, topology.num_groups
    rules = Fraction(min_gain), top_k, nodes, groups, Fraction(cross_node_cost)
    steps = oracle.Problem(start, quantised(load), gpus, budget, *rules)
    expected = kept(oracle.path(steps), load, gpus)
    for backend in BACKENDS:
        new, _ = improve(
            [start],
            [load],
            gpus,
            num_nodes=nodes,
            num_groups=groups,
            max_moves_per_layer=budget,
            min_gain=min_gain,
            cross_node_cost=cross_node_cost,
            top_k=top_k,
            backend=backend,
        )
        (found,) = new.tolist()
        assert oracle.held(found, gpus) == oracle.held(expected, gpus), backend
        further = oracle.best_step(steps, found)
        assert further is None or kept([start, further], load, gpus) == start, backend


def kept(path, load, gpus):
    """The last placement of a path whose heaviest GPU is no heavier than at the start."""
    tidied = [keep_slots(torch.tensor([x]), torch.tensor(path[:1]), gpus)[0].tolist() for x in path]
    return next(x for x in reversed(tidied) if peak(x, load, gpus) <= peak(path[0], load, gpus))


def peak(slots, load, gpus):
    """Load of the heaviest GPU in float64, whose last digit integers may hide."""
    return float(evaluate([slots], [load], gpus, backend="reference").gpu_load.max())


@given(placed_loads(max_load=10**12), st.integers(0, 6), st.integers(0, 6))
def test_the_rules_hold_for_any_load(backend, problem, per_layer, total):
    phy2log, load, gpus = problem
    new, moves = improve(
        phy2log,
        load,
        gpus,
        max_moves_per_layer=per_layer,
        max_moves=total,
        min_gain=0.0,
        backend=backend,
    )
    before, after = (
        evaluate(plan, load, gpus, current=phy2log, backend=backend) for plan in (phy2log, new)
    )
    assert (after.gpu_load.amax(1) <= before.gpu_load.amax(1)).all()
    assert int(after.moves.max()) <= per_layer
    assert int(after.moves.sum()) == len(moves) <= total
    for layer, start in enumerate(phy2log):
        slots = new[layer].tolist()
        assert set(slots) == set(start), "every expert keeps a slot"
        assert all(len(here) == len(slots) // gpus for here in oracle.held(slots, gpus))


@given(placed_loads(), st.integers(0, 4))
def test_moves_list_the_experts_to_copy_with_target_and_sources(backend, problem, budget):
    phy2log, load, gpus = problem
    new, moves = improve(
        phy2log, load, gpus, max_moves_per_layer=budget, min_gain=0.0, backend=backend
    )
    per = len(phy2log[0]) // gpus
    filled = [list(layer) for layer in phy2log]
    for (layer, slot, expert), sources in zip(
        moves.layer_slot_expert.tolist(), moves.source_gpus.tolist(), strict=True
    ):
        had = [g for g, here in enumerate(oracle.held(phy2log[layer], gpus)) if expert in here]
        assert [g for g in sources if g >= 0] == had
        assert slot // per not in had
        filled[layer][slot] = expert
    assert filled == new.tolist(), "the moves alone produce the placement"


def test_one_budget_goes_to_the_layers_where_a_move_gains_most(backend):
    # Layer 1 is ten times as skewed as layer 0; both could use a swap.
    phy2log = [[0, 1, 2, 3]] * 2
    load = [[12.0, 11.0, 9.0, 8.0], [120.0, 80.0, 20.0, 10.0]]
    new, moves = improve(phy2log, load, 2, max_moves=2, backend=backend)
    assert new[0].tolist() == phy2log[0]
    assert moves.layer_slot_expert[:, 0].tolist() == [1, 1]
    both, _ = improve(phy2log, load, 2, max_moves=4, backend=backend)
    assert both[0].tolist() != phy2log[0]


def test_a_transfer_costs_one_move_and_a_swap_two(backend):
    # Expert 0 has two slots and needs one; expert 3 alone has half of the load.
    phy2log, load = [[0, 1, 0, 2, 3, 4]], [[2.0, 10.0, 10.0, 40.0, 10.0]]
    new, moves = improve(phy2log, load, 3, max_moves_per_layer=1, backend=backend)
    assert len(moves) == 1
    assert new[0].tolist().count(3) == 2
    unchanged, none = improve(
        [[0, 1, 2, 3]], [[9.0, 5.0, 1.0, 1.0]], 2, max_moves_per_layer=1, backend=backend
    )
    assert (len(none), unchanged.tolist()) == (0, [[0, 1, 2, 3]]), "only a swap would help"


def test_a_slot_goes_to_an_expert_that_relieves_the_gpu_of_the_donors_other_replica(backend):
    # Without slot 4, expert 0 adds 5 to GPU 0, the heaviest. But expert 2, which gets the
    # slot, takes 500 off it: both GPUs end at 515. Slot 5 would be as good.
    load = [[10.0, 10.0, 1000.0, 10.0]]
    new, moves = improve([[0, 1, 2, 3, 0, 1]], load, 2, backend=backend)
    assert moves.layer_slot_expert.tolist() == [[0, 4, 2]]
    assert new.tolist() == [[0, 1, 2, 3, 2, 1]]
    assert evaluate(new, load, 2, backend=backend).imbalance.tolist() == [1.0]


def test_a_slot_stays_if_no_expert_relieves_all_other_gpus_of_the_donor(backend):
    # GPUs 0 and 1 are heaviest, and both would get heavier if GPU 2 gave up expert 0.
    # Only experts 1 and 2 would gain by the slot, and each relieves only one of these GPUs.
    load = [[12.0, 40.0, 40.0, 20.0]]
    new, _ = improve([[0, 1, 0, 2, 0, 3]], load, 3, backend=backend)
    assert new.tolist() == [[0, 1, 0, 2, 0, 3]]


@given(st.integers(0, 2**32 - 1), st.integers(0, 12))
def test_groups_never_leave_their_node(backend, seed, budget):
    rng = np.random.default_rng(seed)
    old, now = np.exp(rng.normal(size=(2, 2, 16)))
    start = rebalance_experts(old, 24, 4, 2, 4, backend=backend)[0]
    new, _ = improve(
        start, now, 4, num_nodes=2, num_groups=4, max_moves_per_layer=budget, backend=backend
    )
    node_S = torch.arange(24) // 12
    for layer in range(2):
        for group in range(4):
            was, is_ = (
                node_S[plan[layer] // 4 == group].unique().tolist() for plan in (start, new)
            )
            assert was == is_


def test_a_high_cross_node_cost_keeps_moves_inside_nodes(backend):
    rng = np.random.default_rng(0)
    old, now = np.exp(rng.normal(size=(2, 8, 16)))
    start = rebalance_experts(old, 20, 1, 1, 4, backend=backend)[0]

    def crossing(cost):
        _, moves = improve(
            start, now, 4, num_nodes=2, max_moves_per_layer=6, cross_node_cost=cost, backend=backend
        )
        node = moves.layer_slot_expert[:, 1] // 10
        sources = torch.where(moves.source_gpus >= 0, moves.source_gpus // 2, -1)
        return int((sources != node.unsqueeze(1)).all(1).sum())

    assert crossing(1.0) > 0
    assert crossing(100.0) == 0


@pytest.mark.parametrize(("cost", "moves", "budget"), [(1.1, 10, 11), (1.1, 20, 22), (1.2, 5, 6)])
def test_a_fractional_cost_spends_a_budget_exactly(backend, cost, moves, budget):
    # Each layer makes one transfer from another node, and the costs add up to the budget. In
    # float32, 1.1 is rounded up; in float64, 6 minus four times 1.2 is less than 1.2.
    phy2log, load = [[0, 1, 0, 2, 3, 4]] * moves, [[2.0, 10.0, 10.0, 40.0, 10.0]] * moves
    free, one_each = improve(
        phy2log, load, 3, num_nodes=3, max_moves_per_layer=2, max_moves=moves, backend=backend
    )
    assert len(one_each) == moves
    dear, paid = improve(
        phy2log,
        load,
        3,
        num_nodes=3,
        max_moves_per_layer=2,
        max_moves=budget,
        cross_node_cost=cost,
        backend=backend,
    )
    assert len(paid) == moves
    assert torch.equal(dear, free)


def test_a_rise_that_rounding_hides_is_not_taken(backend):
    # In integers the swap of experts 0 and 3 lowers the heavier GPU. In float64,
    # which has the digits that integers round off, it ends 6e-9 heavier.
    start = [[3, 2, 1, 5, 4, 0, 6, 7]]
    load = [
        [
            float.fromhex(text)
            for text in (
                "0x1.8000000300000p+1",
                "0x1.8000006900000p+1",
                "0x1.0000004600000p+0",
                "0x1.0000003400000p+1",
                "0x1.0000004400000p+0",
                "0x1.0000002e00000p+1",
                "0x1.0000004000000p+1",
                "0x1.8000004b00000p+1",
            )
        ]
    ]
    new, moves = improve(start, load, 2, min_gain=0.0, backend=backend)
    assert len(moves) == 0
    assert new.tolist() == start


def test_steps_before_a_rise_that_rounding_hides_are_kept(backend):
    # Groups separate GPUs 0 and 1 from 2 and 3. The first step balances the latter. The
    # second, between GPUs 0 and 1, is as above: it lowers the heavier one in integers only.
    start = [[4, 0, 1, 2, 5, 3, 6, 7, 8, 9, 10, 11]]
    rounded_off = np.array([113, 54, 70, 83, 94, 18]) * 2.0**-31
    load = [[*np.array([1, 2, 1, 2, 1, 2]) + rounded_off, *[0.5] * 3, *[0.25] * 3]]
    new, moves = improve(start, load, 4, num_nodes=2, num_groups=2, min_gain=0.0, backend=backend)
    assert len(moves) == 2
    assert new.tolist() == [[4, 0, 1, 2, 5, 3, 9, 7, 8, 6, 10, 11]]


def test_an_improved_placement_is_not_changed_again(backend):
    rng = np.random.default_rng(5)
    load = np.exp(rng.normal(size=(6, 32)))
    start = rebalance_experts(np.exp(rng.normal(size=(6, 32))), 40, 1, 1, 8, backend=backend)[0]
    new, _ = improve(start, load, 8, min_gain=0.0, backend=backend)
    again, none = improve(new, load, 8, min_gain=0.0, backend=backend)
    assert len(none) == 0
    assert torch.equal(again, new)


@given(st.integers(0, 2**32 - 1), st.integers(0, 8))
def test_a_start_with_doubled_experts_is_improved_and_never_doubled_further(backend, seed, budget):
    rng = np.random.default_rng(seed)
    load = rng.integers(0, 1000, (2, 6)).astype(float)
    rows = [rng.permutation([*range(6), *rng.integers(0, 6, 6)]) for _ in range(2)]
    start = np.stack(rows)
    new, moves = improve(start, load, 4, max_moves_per_layer=budget, min_gain=0.0, backend=backend)
    before, after = (
        evaluate(plan, load, 4, current=start, backend=backend) for plan in (start, new)
    )
    assert (after.gpu_load.amax(1) <= before.gpu_load.amax(1)).all()
    assert int(after.moves.max()) <= budget
    assert int(after.moves.sum()) == len(moves)
    for layer in range(2):
        for gpu in range(4):
            was = start[layer, gpu * 3 : gpu * 3 + 3].tolist()
            is_ = new[layer, gpu * 3 : gpu * 3 + 3].tolist()
            assert all(is_.count(e) <= max(1, was.count(e)) for e in is_)


@pytest.mark.parametrize("chunk", [1, 10**9])
def test_each_layer_has_its_own_min_gain(backend, chunk, monkeypatch):
    """The result is the same as if each layer were improved by itself."""
    monkeypatch.setattr("trimtab_server.solver.backends.reference.memory.MAX_CANDIDATES", chunk)
    rng = np.random.default_rng(9)
    start, load = torch.arange(20).repeat(5, 1) % 16, rng.gamma(0.5, 1.0, (5, 16))
    gains = (0.0, 1e300, 0.01, 0.1, 0.5)
    together, moves = improve(start, load, 4, min_gain=gains, backend=backend)
    one_by_one = [
        improve(start[x : x + 1], load[x : x + 1], 4, min_gain=gain, backend=backend)[0]
        for x, gain in enumerate(gains)
    ]
    assert torch.equal(together, torch.cat(one_by_one))
    counts = moves.per_layer(5).tolist()
    assert counts[1] == 0
    assert counts[0] > counts[3] > 0


def test_chunking_for_memory_changes_no_layer(monkeypatch):
    rng = np.random.default_rng(6)
    start = rebalance_experts(np.exp(rng.normal(size=(5, 16))), 20, 1, 1, 4, backend="reference")[0]
    load = np.exp(rng.normal(size=(5, 16)))
    whole, _ = improve(start, load, 4, max_moves=5, backend="reference")
    monkeypatch.setattr("trimtab_server.solver.backends.reference.memory.MAX_CANDIDATES", 1)
    chunked, _ = improve(start, load, 4, max_moves=5, backend="reference")
    assert torch.equal(whole, chunked)


@pytest.mark.parametrize("load", [[0.0] * 4, [1.0] * 4, [5e11] * 4], ids=str)
def test_an_even_load_causes_no_moves(backend, load):
    new, moves = improve([[0, 1, 2, 3]], [load], 2, min_gain=0.0, backend=backend)
    assert new.tolist() == [[0, 1, 2, 3]]
    assert len(moves) == 0


@pytest.mark.parametrize(
    ("arguments", "field", "said"),
    [
        ({"phy2log": [[0, 1, 2, 4]]}, "phy2log[0, 3]", "4 is not an expert in [0, 4)"),
        ({"phy2log": [[0, 1, 2, 2]]}, "phy2log", "expert 3 has no slot in layer 0"),
        ({"phy2log": [[0, 1, 2, 3]] * 2}, "phy2log", "has 2 layers, but load has 1"),
        ({"phy2log": [[0.0, 1.0, 2.0, 3.0]]}, "phy2log", "float64"),
        ({"load": [[1.0, 2.0, float("inf"), 1.0]]}, "load[0, 2]", "inf"),
        ({"num_gpus": 3}, "num_replicas", "4 is not a multiple of num_gpus (3)"),
        ({"num_nodes": 3}, "num_gpus", "2 is not a multiple of num_nodes (3)"),
        ({"num_groups": 3}, "num_groups", "3 does not divide the number of experts (4)"),
        ({"max_moves": -1}, "max_moves", "-1"),
        ({"max_moves_per_layer": -2}, "max_moves_per_layer", "-2"),
        ({"min_gain": -0.1}, "min_gain", "-0.1"),
        ({"min_gain": float("nan")}, "min_gain", "nan"),
        ({"min_gain": (-0.1,)}, "min_gain", "-0.1"),
        ({"min_gain": (0.1, 0.1)}, "min_gain", "has 2 numbers for 1 layers"),
        ({"cross_node_cost": 0.5}, "cross_node_cost", "0.5"),
        ({"top_k": 0}, "top_k", "0"),
    ],
)
def test_bad_input_is_named(arguments, field, said):
    valid = {"phy2log": [[0, 1, 2, 3]], "load": [[1.0, 2.0, 3.0, 4.0]], "num_gpus": 2}
    with pytest.raises(InvalidArgumentError) as error:
        improve(**{**valid, **arguments})
    (violation,) = error.value.violations
    assert (violation.field, said in violation.description) == (field, True), violation
