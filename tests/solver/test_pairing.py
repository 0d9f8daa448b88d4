"""The pairing of groups with nodes: the lowest peak of all deals, then the lowest squares."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.oracles.placing import deals, node_loads
from trimtab_server.domain.topology import Topology
from trimtab_server.solver import Settings, pack, place, settings_for
from trimtab_server.solver.pairing import (
    MAX_PAIRINGS,
    best_pairing,
    lightest_peak,
    pairings,
)

SHAPES = {(1, 1): 1, (4, 1): 1, (4, 2): 3, (4, 4): 1, (6, 2): 10, (6, 3): 15, (8, 2): 35}
SHAPES |= {(8, 4): 105, (5, 5): 1}


def deal_of(groups: list[int], nodes: int) -> frozenset[frozenset[int]]:
    size = len(groups) // nodes
    return frozenset(frozenset(groups[n * size : (n + 1) * size]) for n in range(nodes))


@pytest.mark.parametrize(("shape", "count"), SHAPES.items(), ids=str)
def test_lists_every_deal_once(shape, count):
    groups, nodes = shape
    listed = pairings(groups, nodes).tolist()
    assert len(listed) == count
    assert {deal_of(row, nodes) for row in listed} == deals(groups, nodes)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_lists_groups_and_nodes_in_ascending_order(shape):
    groups, nodes = shape
    for row in pairings(groups, nodes).tolist():
        parts = [row[n * groups // nodes : (n + 1) * groups // nodes] for n in range(nodes)]
        assert parts == sorted(sorted(part) for part in parts)


@pytest.mark.parametrize("shape", [(12, 3), (12, 4), (16, 4), (16, 8), (256, 2), (256, 128)])
def test_too_many_deals_are_not_listed(shape):
    assert pairings(*shape) is None


@pytest.mark.parametrize(("shape", "count"), {(12, 2): 462, (10, 5): 945, (9, 3): 280}.items())
def test_as_many_deals_as_allowed_are_listed(shape, count):
    assert len(pairings(*shape)) == count <= MAX_PAIRINGS


@st.composite
def group_loads(draw: st.DrawFn) -> tuple[int, int, list[list[int]]]:
    groups, nodes = draw(st.sampled_from(list(SHAPES)))
    most = draw(st.sampled_from([3, 20, 2**30 // groups - 1]))
    row = st.lists(st.integers(0, most), min_size=groups, max_size=groups)
    return groups, nodes, draw(st.lists(row, min_size=1, max_size=3))


def judged(loads: list[float]) -> tuple[float, float]:
    return max(loads), sum(load * load for load in loads)


@given(group_loads())
def test_the_best_pairing_has_the_lowest_peak_then_squares_and_comes_first(problem):
    groups, nodes, loads = problem
    listed = pairings(groups, nodes)
    for row, load in zip(best_pairing(torch.tensor(loads), listed, nodes), loads, strict=True):
        best = min(judged(node_loads(deal, load)) for deal in deals(groups, nodes))
        first = next(
            other
            for other in listed.tolist()
            if judged(node_loads(deal_of(other, nodes), load)) == best
        )
        assert row.tolist() == first


@given(group_loads())
def test_the_lightest_peak_is_the_peak_of_the_best_deal(problem):
    groups, nodes, loads = problem
    found = lightest_peak(torch.tensor(loads, dtype=torch.float64), nodes).tolist()
    assert found == [
        min(max(node_loads(deal, load)) for deal in deals(groups, nodes)) for load in loads
    ]


def nodes_of(plan_R: list[int], nodes: int, per_group: int) -> frozenset[frozenset[int]]:
    size = len(plan_R) // nodes
    return frozenset(
        frozenset(e // per_group for e in plan_R[n * size : (n + 1) * size]) for n in range(nodes)
    )


@given(
    st.sampled_from([(8, 4), (8, 2), (6, 3)]), st.lists(st.integers(0, 99), min_size=8, max_size=8)
)
@settings(max_examples=50)
def test_hierarchical_plans_minimise_the_load_of_the_heaviest_node(backend, shape, load):
    groups, nodes = shape
    load = load[:groups]
    plan = place([load], Topology(2 * groups, nodes, nodes, groups), backend=backend)
    deal = nodes_of(plan.phy2log[0].tolist(), nodes, 1)
    best = min(judged(node_loads(other, load)) for other in deals(groups, nodes))
    assert judged(node_loads(deal, load)) == best


def test_a_plan_deals_groups_better_than_packing_would(backend):
    # 7 7 1 1 and 5 5 4 2 are even, but swaps of two groups do not reach that.
    load = [7.0, 7.0, 5.0, 5.0, 4.0, 2.0, 1.0, 1.0]
    packed = pack([load], 2, settings=settings_for("balanced"))
    per_node = torch.zeros(2, dtype=torch.float64).scatter_add_(
        0, packed.pack_index[0], torch.tensor(load, dtype=torch.float64)
    )
    plan = place([load], Topology(8, 2, 2, 8), backend=backend)
    assert per_node.max() == 17
    assert plan.after.gpu_load.tolist() == [[16.0, 16.0]]


def test_with_too_many_deals_groups_are_packed(backend):
    load = torch.arange(32.0).view(1, 32)
    plan = place(load, Topology(32, 4, 4, 16), settings=Settings(max_iterations=None))
    group_load = load.view(16, 2).sum(1).tolist()
    deal = nodes_of(plan.phy2log[0].tolist(), 4, 2)
    assert [len(node) for node in deal] == [4] * 4
    assert node_loads(deal, group_load) == [124.0] * 4
