"""align returns the placement with the fewest moves of all renamings."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.oracles.improving import held, net_moves
from tests.solver.strategies import phy2logs
from trimtab_server.domain.errors import InvalidArgumentError
from trimtab_server.solver import align


@st.composite
def pairs(draw: st.DrawFn) -> tuple[list[int], list[int], int, int]:
    """Two placements of the same shape, GPUs and nodes."""
    nodes, per_node = draw(st.sampled_from([(1, 1), (1, 3), (1, 4), (2, 1), (2, 2), (3, 1)]))
    gpus, slots = nodes * per_node, draw(st.integers(1, 4))
    experts = draw(st.integers(slots, gpus * slots))
    return draw(phy2logs(experts, gpus, slots)), draw(phy2logs(experts, gpus, slots)), gpus, nodes


def renamings(gpus: int, nodes: int) -> list[list[int]]:
    """All orders of GPUs in which GPUs of one node stay on one node."""
    per = gpus // nodes
    node_of = lambda order: [g // per for g in order]  # noqa: E731
    return [
        list(order)
        for order in permutations(range(gpus))
        if all(len(set(node_of(order)[n * per : (n + 1) * per])) == 1 for n in range(nodes))
    ]


@given(pairs())
def test_no_renaming_moves_fewer_experts(backend, pair):
    new, current, gpus, nodes = pair
    slots = len(new) // gpus
    aligned = align([new], [current], gpus, num_nodes=nodes, backend=backend)[0].tolist()

    def renamed(order: list[int]) -> list[int]:
        return [e for g in order for e in new[g * slots : (g + 1) * slots]]

    fewest = min(net_moves(current, renamed(order), gpus) for order in renamings(gpus, nodes))
    assert net_moves(current, aligned, gpus) == fewest
    wanted = {tuple(map(frozenset, held(renamed(order), gpus))) for order in renamings(gpus, nodes)}
    assert tuple(map(frozenset, held(aligned, gpus))) in wanted


@given(pairs())
def test_experts_that_stay_keep_their_slot(backend, pair):
    new, current, gpus, nodes = pair
    slots = len(new) // gpus
    aligned = align([new], [current], gpus, num_nodes=nodes, backend=backend)[0].tolist()
    assert sorted(aligned) == sorted(new)
    for slot, expert in enumerate(current):
        gpu = slot // slots
        if expert in aligned[gpu * slots : (gpu + 1) * slots]:
            assert aligned[slot] == expert


def test_doubled_experts_are_matched_one_to_one(backend):
    current = [[0, 0, 1, 2]]
    assert align([[1, 2, 0, 0]], current, 2, backend=backend).tolist() == current
    assert align([[2, 1, 1, 0]], current, 2, backend=backend).tolist() == [[0, 1, 1, 2]]


def test_large_numbers_of_experts_cost_no_memory(backend):
    far = 2**40
    assert align([[far, 5]], [[5, far]], 2, backend=backend).tolist() == [[5, far]]


def test_each_layer_is_aligned_by_itself(backend):
    current = torch.tensor([[0, 1, 2, 3], [0, 1, 2, 3]])
    new = torch.tensor([[2, 3, 0, 1], [1, 0, 3, 2]])
    assert torch.equal(align(new, current, 2, backend=backend), current)


@pytest.mark.parametrize(
    ("arguments", "field", "said"),
    [
        ({"current": [[0, 1]]}, "current", "(1, 2)"),
        ({"new": [[0, 1, -2, 0]]}, "new", "-2"),
        ({"new": [0, 1, 2, 3]}, "new", "rank 1"),
        ({"num_gpus": 3}, "num_replicas", "4 is not a multiple of num_gpus (3)"),
        ({"num_nodes": 4}, "num_gpus", "2 is not a multiple of num_nodes (4)"),
        ({"backend": "abacus"}, "backend", "abacus"),
    ],
)
def test_bad_input_is_named(arguments, field, said):
    valid = {"new": [[0, 1, 2, 3]], "current": [[0, 1, 2, 3]], "num_gpus": 2}
    with pytest.raises(InvalidArgumentError) as error:
        align(**{**valid, **arguments})
    (violation,) = error.value.violations
    assert (violation.field, said in violation.description) == (field, True), violation
