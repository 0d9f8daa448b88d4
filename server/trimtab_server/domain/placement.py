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
from trimtab_server.domain.moves import moves_between


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
        array = checked_LR.to("cpu", torch.int32).numpy().copy()
        array.setflags(write=False)
        return cls(array, num_experts, num_gpus)

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the placement; its bytes are defined in placement.proto."""
        layers, slots = self.phy2log.shape
        header = struct.pack("<4I", layers, slots, self.num_experts, self.num_gpus)
        body = self.phy2log.astype("<i4", copy=False).tobytes()
        return hashlib.sha256(b"trimtab.placement.v1" + header + body).digest()

    def tensor(self) -> Tensor:
        """`phy2log` as a new int64 tensor [L, R] on the CPU."""
        return torch.from_numpy(self.phy2log.astype(np.int64))


def count_moves(current: Placement, new: Placement) -> int:
    """Net moves from one placement to another of the same shape; see `moves_between`."""
    differ_L = (current.phy2log != new.phy2log).any(1)
    old_KR, new_KR = current.tensor()[differ_L], new.tensor()[differ_L]
    return len(moves_between(old_KR, new_KR, new.num_experts, new.num_gpus))
