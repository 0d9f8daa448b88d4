"""Placements from what callers pass, and the moves between two of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trimtab_protocol.placement import Placement, read_only
from trimtab_server.domain.arrays import as_indices
from trimtab_server.domain.errors import malformed_as_invalid


def placement_of(phy2log: Any, num_experts: int, num_gpus: int) -> Placement:
    """Check `phy2log` [L, R], an array or tensor of integers, and take a copy of it.

    Raises:
        InvalidArgumentError: see `Placement.of`.
    """
    phy2log_LR = as_indices(phy2log, "phy2log").cpu().numpy()
    with malformed_as_invalid():
        return Placement.of(phy2log_LR, num_experts, num_gpus)


def tensor_of(placement: Placement) -> Tensor:
    """`phy2log` as a new int64 tensor [L, R] on the CPU."""
    return torch.from_numpy(placement.phy2log.astype(np.int64))


def of_layers(placement: Placement, layer_A: npt.NDArray[np.int64]) -> Placement:
    """A placement of some of the layers, in the order given."""
    return replace(placement, phy2log=read_only(placement.phy2log[layer_A]))


def with_layers(
    placement: Placement,
    layer_A: npt.NDArray[np.int64],
    other: Placement,
    row_A: npt.NDArray[np.int64],
) -> Placement:
    """A placement with the rows `row_A` of another in the layers `layer_A`."""
    phy2log_LR = placement.phy2log.copy()
    phy2log_LR[layer_A] = other.phy2log[row_A]
    return replace(placement, phy2log=read_only(phy2log_LR))


def count_moves(current: Placement, new: Placement) -> int:
    """Net moves from one placement to another of the same shape; see `moves_between`."""
    gpus = new.num_gpus
    moves = 0
    for layer in np.flatnonzero((current.phy2log != new.phy2log).any(1)):
        held_GS = current.phy2log[layer].reshape(gpus, -1)
        wanted_GS = new.phy2log[layer].reshape(gpus, -1)
        gpu_C, slot_C = np.nonzero(held_GS != wanted_GS)
        expert_C = wanted_GS[gpu_C, slot_C]
        # An expert that lay in another slot of its GPU does not move; one that arrives twice, once.
        arrives_C = (held_GS[gpu_C] != expert_C[:, None]).all(1)
        moves += np.unique((gpu_C * new.num_experts + expert_C)[arrives_C]).size
    return moves
