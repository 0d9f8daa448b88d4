"""A placement, and how evenly it spreads a load.

Legend for all shapes: L layers, E logical experts, R physical slots, G GPUs,
X replicas of the expert that has most.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from trimtab_client.arrays import Matrix, as_amounts, as_indices
from trimtab_client.exceptions import invalid

IntArray = npt.NDArray[np.int32]
FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Balance:
    """How evenly a placement spreads a load, if replicas of an expert share its load evenly.

    Attributes:
        gpu_load: float64 [L, G], in the unit of the load.
        imbalance: float64 [L]: heaviest GPU / mean GPU, >= 1; 1 without load.
        bound: float64 [L], >= 1: lower bound on the imbalance of any placement of this
            topology; none need reach it. 1, which always holds, where no better one is
            known: from `Placement.balance`, and from servers too old to send it.
    """

    gpu_load: FloatArray
    imbalance: FloatArray
    bound: FloatArray

    @property
    def balancedness(self) -> FloatArray:
        """1 / imbalance, float64 [L]."""
        return 1.0 / self.imbalance

    @property
    def gap(self) -> FloatArray:
        """How far from the possible the placement is: imbalance / bound - 1, float64 [L], >= 0.

        0.02: the heaviest GPU carries at most 2 % more than in the best placement there
        is; 0: none is better. Below the bound, by rounding or because router groups are
        taken apart, it is 0.
        """
        return np.maximum(self.imbalance / self.bound - 1.0, 0.0)


@dataclass(frozen=True, eq=False)
class Placement:
    """Which expert lies in each slot, for all layers. Immutable, and equal by digest.

    Build one from an array with `Placement.of`. All arrays are int32 and read-only.

    Attributes:
        phy2log: [L, R], the logical expert in each physical slot.
        num_experts: E.
        num_gpus: G; slot r lies on GPU r // (R / G).
    """

    phy2log: IntArray
    num_experts: int
    num_gpus: int

    @classmethod
    def of(cls, phy2log: npt.ArrayLike, num_experts: int, num_gpus: int) -> Placement:
        """Check `phy2log` [L, R] and take a copy of it.

        Raises:
            InvalidArgumentError: not an integer matrix, G does not divide R, an
                entry outside [0, E), or an expert without a slot.
        """
        phy2log_LR = as_indices(phy2log, "phy2log")
        slots = phy2log_LR.shape[1]
        if num_gpus < 1 or slots % num_gpus:
            raise invalid("num_gpus", f"{num_gpus} does not divide the number of slots ({slots})")
        _require_experts(phy2log_LR, num_experts)
        placement = cls(_frozen(phy2log_LR.astype(np.int32)), num_experts, num_gpus)
        missing = np.argwhere(placement.logcnt == 0)
        if missing.size:
            layer, expert = missing[0]
            raise invalid("phy2log", f"expert {expert} has no slot in layer {layer}")
        return placement

    @classmethod
    def untouched(
        cls, num_layers: int, num_experts: int, num_replicas: int, num_gpus: int
    ) -> Placement:
        """What an engine loads before any balancing: slot r holds expert r modulo E."""
        row_R = np.arange(num_replicas, dtype=np.int32) % num_experts
        return cls.of(np.tile(row_R, (num_layers, 1)), num_experts, num_gpus)

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 that names this placement; its bytes are defined in placement.proto."""
        layers, slots = self.phy2log.shape
        header = struct.pack("<4I", layers, slots, self.num_experts, self.num_gpus)
        body = self.phy2log.astype("<i4", copy=False).tobytes()
        return hashlib.sha256(b"trimtab.placement.v1" + header + body).digest()

    @cached_property
    def logcnt(self) -> IntArray:
        """Replicas of each expert, [L, E]."""
        layers = len(self.phy2log)
        first_L1 = np.arange(layers)[:, None] * self.num_experts
        counts = np.bincount((self.phy2log + first_L1).ravel(), minlength=layers * self.num_experts)
        return _frozen(counts.reshape(layers, -1).astype(np.int32))

    @cached_property
    def rank(self) -> IntArray:
        """Which replica of its expert each slot holds, counted in slot order, [L, R]."""
        order_LR = np.argsort(self.phy2log, axis=1, kind="stable")
        sorted_LR = np.take_along_axis(self.phy2log, order_LR, axis=1)
        first_LE = np.cumsum(self.logcnt, axis=1) - self.logcnt
        positions_R = np.arange(self.phy2log.shape[1])
        rank_LR = np.empty_like(self.phy2log)
        ranks = positions_R - np.take_along_axis(first_LE, sorted_LR, axis=1)
        np.put_along_axis(rank_LR, order_LR, ranks.astype(np.int32), axis=1)
        return _frozen(rank_LR)

    @cached_property
    def log2phy(self) -> IntArray:
        """The slots of each expert, ascending, [L, E, X], padded with -1."""
        layers, slots = self.phy2log.shape
        log2phy_LEX = np.full((layers, self.num_experts, self.logcnt.max()), -1, np.int32)
        layer_L1 = np.arange(layers)[:, None]
        log2phy_LEX[layer_L1, self.phy2log, self.rank] = np.arange(slots, dtype=np.int32)
        return _frozen(log2phy_LEX)

    def balance(self, load: npt.ArrayLike) -> Balance:
        """How evenly this placement spreads `load` [L, E], computed here, not by the server.

        The imbalance is NaN where a sum of loads is beyond float64, and the bound is 1:
        a tighter one takes the solver, and is part of what it answers.

        Raises:
            InvalidArgumentError: `load` is not a matrix of real numbers [L, E].
        """
        load_LE = as_amounts(load, "load").astype(np.float64)
        if load_LE.shape != self.logcnt.shape:
            raise invalid("load", f"shape {load_LE.shape} is not [L, E] = {self.logcnt.shape}")
        share_LE = load_LE / self.logcnt
        share_LR = np.take_along_axis(share_LE, self.phy2log, axis=1)
        with np.errstate(over="ignore", invalid="ignore"):
            gpu_load_LG = share_LR.reshape(len(share_LR), self.num_gpus, -1).sum(axis=2)
            imbalance_L = _imbalance(gpu_load_LG)
        return Balance(gpu_load_LG, imbalance_L, np.ones_like(imbalance_L))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Placement) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)


def _require_experts(phy2log_LR: Matrix, num_experts: int) -> None:
    outside = np.argwhere((phy2log_LR < 0) | (phy2log_LR >= num_experts))
    if outside.size:
        layer, slot = outside[0]
        expert = phy2log_LR[layer, slot]
        field = f"phy2log[{layer}, {slot}]"
        raise invalid(field, f"{expert} is not an expert in [0, {num_experts})")


def _imbalance(gpu_load_LG: FloatArray) -> FloatArray:
    mean_L = gpu_load_LG.mean(axis=1)
    ratio_L: FloatArray = np.ones_like(mean_L)
    np.divide(gpu_load_LG.max(axis=1), mean_L, out=ratio_L, where=mean_L > 0)
    np.maximum(ratio_L, 1.0, out=ratio_L)
    return ratio_L


def _frozen(array: IntArray) -> IntArray:
    array.setflags(write=False)
    return array
