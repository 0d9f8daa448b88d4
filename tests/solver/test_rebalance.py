"""The drop-in replacements: shapes, rules of the topology, and extreme loads."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trimtab_server.domain.errors import InvalidArgumentError
from trimtab_server.solver import evaluate, rebalance_experts, rebalance_phy2log

LOADS = {
    "lognormal": lambda rng, shape: np.exp(rng.normal(size=shape)),
    "counts to 1e12": lambda rng, shape: rng.integers(0, 10**12, shape),
    "zero": lambda rng, shape: np.zeros(shape),
    "one hot": lambda rng, shape: np.eye(*shape) * 1e12,
    "equal": lambda rng, shape: np.full(shape, 7),
}
# num_replicas, num_groups, num_nodes, num_gpus, experts
SHAPES = [
    (12, 1, 1, 4, 12),
    (12, 4, 2, 4, 8),
    (14, 3, 2, 7, 9),
    (30, 6, 3, 6, 18),
    (9, 1, 1, 1, 5),
    (6, 1, 1, 6, 6),
    (24, 2, 2, 4, 4),
    (21, 1, 1, 7, 13),
]


def test_shapes_maps_and_rules(backend):
    for kind, shape, effort in product(LOADS, SHAPES, ("fast", "balanced")):
        try:
            check_maps(backend, kind, shape, effort)
        except Exception as error:
            error.add_note(f"with loads {kind!r}, shape {shape} and effort {effort!r}")
            raise


def check_maps(backend, kind, shape, effort):
    replicas, groups, nodes, gpus, experts = shape
    if gpus % nodes:
        nodes = 1
    load = LOADS[kind](np.random.default_rng(0), (3, experts))
    phy2log, log2phy, logcnt = rebalance_experts(
        load, replicas, groups, nodes, gpus, effort=effort, backend=backend
    )
    assert phy2log.shape == (3, replicas)
    assert logcnt.shape == (3, experts)
    assert log2phy.shape == (3, experts, int(logcnt.max()))
    assert phy2log.dtype == log2phy.dtype == logcnt.dtype == torch.int64
    for layer in range(3):
        slots = phy2log[layer].tolist()
        for expert in range(experts):
            where = [slot for slot, e in enumerate(slots) if e == expert]
            assert logcnt[layer, expert] == len(where) >= 1
            assert [s for s in log2phy[layer, expert].tolist() if s >= 0] == where
        assert_no_needless_double(slots, gpus, reachable=gpus)


def assert_no_needless_double(slots, gpus, reachable):
    per = len(slots) // gpus
    for gpu in range(gpus):
        here = slots[gpu * per : (gpu + 1) * per]
        for expert in set(here):
            if slots.count(expert) <= reachable:
                assert here.count(expert) == 1, f"expert {expert} twice on GPU {gpu}: {slots}"


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(0, 3), st.data())
def test_a_group_stays_on_one_node_and_its_replicas_on_different_gpus(
    backend, nodes, groups_per_node, per_group, more, data
):
    experts_per_node = groups_per_node * per_group
    gpus_per_node = data.draw(st.integers(1, 3))
    slots = max(-(-experts_per_node // gpus_per_node), more)
    gpus, groups = nodes * gpus_per_node, nodes * groups_per_node
    experts, replicas = nodes * experts_per_node, nodes * gpus_per_node * slots
    load = [data.draw(st.lists(st.integers(0, 99), min_size=experts, max_size=experts))]
    phy2log, _, logcnt = rebalance_experts(load, replicas, groups, nodes, gpus, backend=backend)
    node_of_slot = [slot // (replicas // nodes) for slot in range(replicas)]
    nodes_of_group: dict[int, set[int]] = {}
    for slot, expert in enumerate(phy2log[0].tolist()):
        nodes_of_group.setdefault(expert // per_group, set()).add(node_of_slot[slot])
    if groups > 1:
        assert all(len(found) == 1 for found in nodes_of_group.values())
        assert int(logcnt.max()) <= max(gpus_per_node, -(-replicas // experts))
        assert_no_needless_double(phy2log[0].tolist(), gpus, reachable=gpus_per_node)


def test_plans_are_global_if_the_nodes_do_not_divide_the_groups(backend):
    load = np.random.default_rng(1).integers(0, 100, (2, 12))
    # 5 nodes do not even divide the GPUs.
    mixed = rebalance_experts(load, 18, 4, 5, 6, backend=backend)[0]
    plain = rebalance_experts(load, 18, 1, 1, 6, backend=backend)[0]
    assert torch.equal(mixed, plain)


def test_more_effort_balances_better_on_skewed_loads(backend):
    load = np.exp(np.random.default_rng(2).normal(size=(12, 64)) * 0.65)
    fast, balanced = (
        evaluate(
            rebalance_experts(load, 72, 1, 1, 18, effort=effort, backend=backend)[0],
            load,
            18,
            backend=backend,
        )
        for effort in ("fast", "balanced")
    )
    assert balanced.balancedness.mean() > fast.balancedness.mean()
    assert balanced.balancedness.min() > fast.balancedness.min()


def test_only_the_seed_changes_the_plan(backend):
    load = np.exp(np.random.default_rng(3).normal(size=(4, 32)))
    plans = [
        rebalance_experts(load, 40, 1, 1, 8, effort="balanced", seed=seed, backend=backend)[0]
        for seed in (1, 1, 2)
    ]
    assert torch.equal(plans[0], plans[1])
    assert not torch.equal(plans[0], plans[2])


def test_all_errors_of_a_topology_are_named_at_once():
    with pytest.raises(InvalidArgumentError) as error:
        rebalance_experts(torch.ones(1, 8), 21, 3, 3, 4)
    assert {v.field for v in error.value.violations} == {"num_replicas", "num_gpus"}


def test_a_model_without_groups_is_placed_as_if_it_had_one():
    load = LOADS["lognormal"](np.random.default_rng(0), (3, 16))
    for nodes in (1, 2):
        without = rebalance_phy2log(load, 20, 0, nodes, 4)
        assert without.equal(rebalance_phy2log(load, 20, 1, 1, 4))


@pytest.mark.parametrize(
    ("arguments", "field", "said"),
    [
        ({"num_replicas": 4}, "num_replicas", "4 slots cannot hold 8 experts"),
        ({"num_replicas": 10}, "num_replicas", "10 is not a multiple of num_gpus (4)"),
        ({"num_gpus": 0}, "num_gpus", "0 is below 1"),
        ({"num_nodes": 0}, "num_nodes", "0 is below 1"),
        ({"num_nodes": 3, "num_groups": 3}, "num_gpus", "4 is not a multiple of num_nodes (3)"),
        ({"num_groups": 3, "num_nodes": 1}, "num_groups", "3 does not divide"),
        ({"weight": torch.full((1, 8), float("nan"))}, "weight[0, 0]", "nan"),
        ({"weight": torch.ones(8)}, "weight", "rank 1"),
        ({"effort": "heroic"}, "effort", "heroic"),
        ({"effort": ["fast"]}, "effort", "['fast']"),
        ({"seed": 1.5}, "seed", "1.5 is not an integer"),
        ({"num_gpus": "4"}, "num_gpus", "'4' is not an integer"),
        ({"num_nodes": 1.0}, "num_nodes", "1.0 is not an integer"),
        ({"backend": "abacus"}, "backend", "abacus"),
    ],
)
def test_bad_input_is_named(arguments, field, said):
    valid = {
        "weight": torch.ones(1, 8),
        "num_replicas": 12,
        "num_groups": 1,
        "num_nodes": 1,
        "num_gpus": 4,
    }
    with pytest.raises(InvalidArgumentError) as error:
        rebalance_experts(**{**valid, **arguments})
    (violation,) = error.value.violations
    assert (violation.field, said in violation.description) == (field, True), violation
