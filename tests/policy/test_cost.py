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


def seconds(old: list[int], new: list[int]) -> float:
    moves = moves_between(torch.tensor([old]), torch.tensor([new]), 8, 4)
    return busiest_seconds(moves, TOPOLOGY, 100, FAST, SLOW)


def test_no_moves_cost_nothing():
    same = list(range(8))
    assert seconds(same, same) == 0.0


def test_a_move_inside_a_node_takes_the_fast_link():
    assert seconds([0, 1, 2, 3, 4, 5, 6, 7], [0, 2, 1, 3, 4, 5, 6, 7]) == 100 / FAST


def test_a_move_to_another_node_takes_the_slow_link():
    assert seconds([0, 1, 2, 3, 4, 5, 6, 7], [0, 4, 2, 3, 1, 5, 6, 7]) == 100 / SLOW


def test_the_nearest_source_sends():
    # Expert 0 is on GPUs 0 and 2; GPU 3 gets it from GPU 2 on its own node.
    assert seconds([0, 1, 2, 3, 0, 5, 6, 7], [0, 1, 2, 3, 0, 5, 0, 7]) == 100 / FAST


def test_the_busiest_gpu_counts_whether_it_sends_or_receives():
    # GPU 0 sends expert 0 to GPU 1 twice over two layers, which receive on different slots.
    old = torch.tensor([[0, 1, 2, 3, 4, 5, 6, 7]] * 2)
    new = torch.tensor([[0, 1, 0, 3, 4, 5, 6, 7], [0, 1, 2, 0, 4, 5, 6, 7]])
    moves = moves_between(old, new, 8, 4)
    assert busiest_seconds(moves, TOPOLOGY, 100, FAST, SLOW) == pytest.approx(200 / FAST)


def test_experts_without_bytes_cost_nothing():
    nothing = Moves(torch.zeros(0, 3, dtype=torch.int64), torch.zeros(0, 0, dtype=torch.int64))
    assert busiest_seconds(nothing, TOPOLOGY, 100, FAST, SLOW) == 0.0
