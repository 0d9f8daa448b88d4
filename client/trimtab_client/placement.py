"""A placement, and how evenly it spreads a load. `trimtab_protocol` has the legend of shapes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from trimtab_client.arrays import as_amounts, as_indices
from trimtab_client.exceptions import invalid, invalid_as
from trimtab_protocol import placement as protocol
from trimtab_protocol.errors import MalformedError
from trimtab_protocol.placement import IntArray as IntArray

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


class Placement(protocol.Placement):
    """Which expert lies in each slot, for all layers. Immutable, and equal by digest.

    Build one from an array with `Placement.of`. All arrays are int32 and read-only.

    Attributes:
        phy2log: [L, R], the logical expert in each physical slot; slot r lies on GPU r // (R / G).
        num_experts, num_gpus: E and G.
        logcnt: [L, E], the replicas of each expert.
        rank: [L, R], which replica of its expert each slot holds, counted in slot order.
        log2phy: [L, E, X], the slots of each expert, ascending, padded with -1.
        digest: SHA-256 that names the placement.
    """

    @classmethod
    def of(cls, phy2log: npt.ArrayLike, num_experts: int, num_gpus: int) -> Self:
        """Check `phy2log` [L, R] and take a copy of it.

        Raises:
            InvalidArgumentError: not an integer matrix, G does not divide R, an
                entry outside [0, E), or an expert without a slot.
        """
        try:
            return super().of(as_indices(phy2log, "phy2log"), num_experts, num_gpus)
        except MalformedError as error:
            raise invalid_as(error) from error

    @classmethod
    def untouched(
        cls, num_layers: int, num_experts: int, num_replicas: int, num_gpus: int
    ) -> Placement:
        """What an engine loads before any balancing: slot r holds expert r modulo E."""
        row_R = np.arange(num_replicas, dtype=np.int32) % num_experts
        return cls.of(np.tile(row_R, (num_layers, 1)), num_experts, num_gpus)

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


def _imbalance(gpu_load_LG: FloatArray) -> FloatArray:
    mean_L = gpu_load_LG.mean(axis=1)
    ratio_L: FloatArray = np.ones_like(mean_L)
    np.divide(gpu_load_LG.max(axis=1), mean_L, out=ratio_L, where=mean_L > 0)
    np.maximum(ratio_L, 1.0, out=ratio_L)
    return ratio_L
