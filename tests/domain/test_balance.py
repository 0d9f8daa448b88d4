"""The balance of many layers in a few numbers, and evaluations made of several."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trimtab_protocol.placement import Placement
from trimtab_server.domain.balance import Evaluation, OverLayers
from trimtab_server.domain.moves import moves_between
from trimtab_server.domain.placement import (
    count_moves,
    of_layers,
    placement_of,
    tensor_of,
    with_layers,
)


def test_layers_without_load_do_not_count() -> None:
    loads_LG = torch.tensor([[3.0, 1.0], [0.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    assert OverLayers.of(loads_LG.double()) == OverLayers(1.5, 1.0, 1.25, 2)


def test_there_is_no_balance_if_no_layer_has_load() -> None:
    assert OverLayers.of(torch.zeros(3, 2, dtype=torch.float64)) is None


@pytest.mark.parametrize("seed", range(5))
def test_layers_of_two_placements_can_be_combined(seed: int) -> None:
    """Moves and evaluation are those of the combined placement."""
    rng = np.random.default_rng(seed)

    def placement(layers: int) -> Placement:
        rows = [[*rng.permutation(6), *rng.integers(6, size=3)] for _ in range(layers)]
        return placement_of(np.array(rows), 6, 3)

    current, first, second = placement(5), placement(5), placement(3)
    layer_A, row_A = np.array([1, 4]), np.array([0, 2])
    mixed = with_layers(first, layer_A, second, row_A)
    assert mixed.phy2log[[1, 4]].tolist() == second.phy2log[[0, 2]].tolist()
    assert mixed.phy2log[[0, 2, 3]].tolist() == first.phy2log[[0, 2, 3]].tolist()
    assert not mixed.phy2log.flags.writeable

    below = of_layers(current, np.array([1, 2, 4]))
    ours, theirs = (
        moves_between(tensor_of(was), tensor_of(new), 6, 3)
        for was, new in ((current, first), (below, second))
    )
    found = ours.with_layers(layer_A, theirs, row_A)
    expected = moves_between(tensor_of(current), tensor_of(mixed), 6, 3)
    assert found.layer_slot_expert.tolist() == expected.layer_slot_expert.tolist()
    width = expected.source_gpus.shape[1]
    assert found.source_gpus[:, :width].tolist() == expected.source_gpus.tolist()
    assert (found.source_gpus[:, width:] == -1).all()
    assert len(found) == count_moves(current, mixed)


def test_a_combined_evaluation_takes_each_layer_from_its_source() -> None:
    def of(layers: int, value: float) -> Evaluation:
        numbers_L = torch.full((layers,), value, dtype=torch.float64)
        return Evaluation.of(numbers_L.unsqueeze(1).repeat(1, 2), numbers_L, numbers_L)

    mixed = of(3, 1.0).with_layers(np.array([2]), of(2, 5.0), np.array([1]))
    assert mixed.imbalance.tolist() == mixed.bound.tolist() == [1, 1, 5]
    assert mixed.gpu_load.tolist() == [[1, 1], [1, 1], [5, 5]]
