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
    differ_L = (current.phy2log != new.phy2log).any(1)
    return int(np.setdiff1d(_held(new, differ_L), _held(current, differ_L)).size)


def _held(placement: Placement, layers_L: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """A number for each expert on each GPU in each of these layers; twice where it lies twice."""
    rows_KR = placement.phy2log[layers_L].astype(np.int64)
    layers, slots = rows_KR.shape
    gpu_R = np.arange(slots) // (slots // placement.num_gpus)
    place_KR = np.arange(layers)[:, None] * placement.num_gpus + gpu_R
    held_KR: npt.NDArray[np.int64] = place_KR * placement.num_experts + rows_KR
    return held_KR
