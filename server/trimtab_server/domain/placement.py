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
    layers, slots = new.phy2log.shape
    per_gpu = slots // new.num_gpus
    layer_C, slot_C = np.nonzero(current.phy2log != new.phy2log)
    expert_C, gpu_C = new.phy2log[layer_C, slot_C], slot_C // per_gpu
    # An expert that lay in another slot of its GPU does not move, and one that arrives twice, once.
    held_CS = current.phy2log.reshape(layers, -1, per_gpu)[layer_C, gpu_C]
    arrives_C = (held_CS != expert_C[:, None]).all(1)
    cell_C = (layer_C * new.num_gpus + gpu_C) * new.num_experts + expert_C
    return int(np.unique(cell_C[arrives_C]).size)
