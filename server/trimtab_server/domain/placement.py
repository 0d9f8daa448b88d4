"""A placement: which expert lies in each slot, checked once and then immutable."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trimtab_server.domain.arrays import check_phy2log


@dataclass(frozen=True, eq=False)
class Placement:
    """An immutable, checked `phy2log` of all layers. Build it with `Placement.of`.

    Attributes:
        phy2log: int32 [L, R], read-only: the logical expert in each slot.
        num_experts: E, logical experts of a layer.
        num_gpus: G; slot r lies on GPU r // (R / G).
    """

    phy2log: npt.NDArray[np.int32]
    num_experts: int
    num_gpus: int

    @classmethod
    def of(cls, phy2log: Any, num_experts: int, num_gpus: int) -> Placement:
        """Check `phy2log` [L, R] and take a copy of it.

        Raises:
            InvalidArgumentError: see `check_phy2log`.
        """
        checked_LR = check_phy2log(phy2log, "phy2log", num_experts)
        array = checked_LR.cpu().numpy().astype(np.int32)
        array.setflags(write=False)
        return cls(array, num_experts, num_gpus)

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the placement; its bytes are defined in placement.proto."""
        layers, slots = self.phy2log.shape
        header = struct.pack("<4I", layers, slots, self.num_experts, self.num_gpus)
        body = self.phy2log.astype("<i4", copy=False).tobytes()
        return hashlib.sha256(b"trimtab.placement.v1" + header + body).digest()

    def of_layers(self, layer_A: npt.NDArray[np.int64]) -> Placement:
        """The same of some layers, in their order."""
        return self._made_of(self.phy2log[layer_A])

    def with_layers(
        self, layer_A: npt.NDArray[np.int64], other: Placement, row_A: npt.NDArray[np.int64]
    ) -> Placement:
        """The same, but in layers `layer_A` what `other` has in `row_A`."""
        phy2log_LR = self.phy2log.copy()
        phy2log_LR[layer_A] = other.phy2log[row_A]
        return self._made_of(phy2log_LR)

    def _made_of(self, phy2log_LR: npt.NDArray[np.int32]) -> Placement:
        """A placement of rows that have been checked."""
        phy2log_LR.setflags(write=False)
        return Placement(phy2log_LR, self.num_experts, self.num_gpus)

    def tensor(self) -> Tensor:
        """`phy2log` as a new int64 tensor [L, R] on the CPU."""
        return torch.from_numpy(self.phy2log.astype(np.int64))


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
