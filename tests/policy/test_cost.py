"""The cost of moves: the time of the busiest GPU, by the kind of link."""

from __future__ import annotations

import pytest
import torch

from trimtab_server.domain.moves import Moves, moves_between
from trimtab_server.domain.topology import Topology
from trimtab_server.policy.cost import busiest_seconds

# Four GPUs on two nodes, two slots each; an expert has 100 bytes.
TOPOLOGY = Topology(num_replicas=8, num_gpus=4, num_nodes=2)
FAST, SLOW = 50.0, 10.0


def seconds(old_LR: list[list[int]], new_LR: list[list[int]]) -> float:
    moves = moves_between(torch.tensor(old_LR), torch.tensor(new_LR), 8, 4)
    return busiest_seconds(moves, TOPOLOGY, 100, FAST, SLOW)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ([0, 1, 2, 3, 4, 5, 6, 7], [0, 1, 2, 3, 4, 5, 6, 7], 0.0),
        ([0, 1, 2, 3, 4, 5, 6, 7], [0, 2, 1, 3, 4, 5, 6, 7], 100 / FAST),
        ([0, 1, 2, 3, 4, 5, 6, 7], [0, 4, 2, 3, 1, 5, 6, 7], 100 / SLOW),
        # Expert 0 is on GPUs 0 and 2; GPU 3 gets it from GPU 2 on its own node.
        ([0, 1, 2, 3, 0, 5, 6, 7], [0, 1, 2, 3, 0, 5, 0, 7], 100 / FAST),
    ],
    ids=["no moves", "inside a node", "to another node", "from the nearest source"],
)
def test_a_move_costs_the_time_of_its_link(old: list[int], new: list[int], expected: float):
    assert seconds([old], [new]) == expected


def test_the_busiest_gpu_counts_whether_it_sends_or_receives():
    # GPU 0 sends expert 0 to GPU 1 twice over two layers, which receive on different slots.
    new_LR = [[0, 1, 0, 3, 4, 5, 6, 7], [0, 1, 2, 0, 4, 5, 6, 7]]
    assert seconds([[0, 1, 2, 3, 4, 5, 6, 7]] * 2, new_LR) == pytest.approx(200 / FAST)


def test_experts_without_bytes_cost_nothing():
    nothing = Moves(torch.zeros(0, 3, dtype=torch.int64), torch.zeros(0, 0, dtype=torch.int64))
    assert busiest_seconds(nothing, TOPOLOGY, 100, FAST, SLOW) == 0.0
