"""Predicts the load of GPUs, by how their engine divides tokens over the replicas of an expert."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trimtab_protocol.engine import EngineCall
from trimtab_protocol.messages import Split
from trimtab_protocol.placement import Placement
from trimtab_server.domain.balance import loads_with
from trimtab_server.loads.estimates import Loads
from trimtab_server.solver import best_split_loads

Layers = npt.NDArray[np.int64]


class GpuLoads(Protocol):
    """Predicts the load of each GPU."""

    def __call__(
        self, placement: Placement, load: Loads, /, layer_A: Layers | None = None
    ) -> Tensor:
        """The loads, float64 [A, G].

        Args:
            placement: of some layers.
            load: of the same layers, [A, E].
            layer_A: which layers of the deployment they are; None for all.
        """


def even_loads(placement: Placement, load: Loads, /, layer_A: Layers | None = None) -> Tensor:
    """Each replica gets the same share."""
    del layer_A
    return loads_with(placement, load)


def best_loads(placement: Placement, load: Loads, /, layer_A: Layers | None = None) -> Tensor:
    """Each batch is divided so that the heaviest GPU gets as little as it can."""
    del layer_A
    return best_split_loads(placement.phy2log, load, placement.num_gpus)


class MeasuredLoads:
    """Replicas get the shares of their expert that they got when the slots were counted.

    An engine may prefer near replicas, for example. Experts that had other slots then, or no
    tokens, are taken to be shared evenly.

    Args:
        placement: the one in force while the slots were counted, of all layers.
        counts_LR: int64 [L, R], the tokens of each slot.
    """

    def __init__(self, placement: Placement, counts_LR: npt.NDArray[np.int64]) -> None:
        self._phy2log_LR = placement.phy2log
        of_expert_LE = np.zeros(placement.logcnt.shape)
        np.add.at(of_expert_LE, _cells(placement), counts_LR)
        tokens_LR = of_expert_LE[_cells(placement)]
        self._share_LR = np.where(tokens_LR > 0, counts_LR / np.maximum(tokens_LR, 1), np.nan)

    def __call__(
        self, placement: Placement, load: Loads, /, layer_A: Layers | None = None
    ) -> Tensor:
        """See `GpuLoads`."""
        rows = slice(None) if layer_A is None else layer_A
        cells, then_AR = _cells(placement), self._phy2log_LR[rows]
        row_C, slot_C = np.nonzero(placement.phy2log != then_AR)
        elsewhere_AE = np.zeros(placement.logcnt.shape, np.bool_)
        elsewhere_AE[row_C, placement.phy2log[row_C, slot_C]] = True
        elsewhere_AE[row_C, then_AR[row_C, slot_C]] = True
        measured_AR = self._share_LR[rows]
        unknown_AR = elsewhere_AE[cells] | np.isnan(measured_AR)
        share_AR = np.where(unknown_AR, 1.0 / placement.logcnt[cells], measured_AR)
        load_AR = np.asarray(load)[cells] * share_AR
        return torch.from_numpy(load_AR.reshape(len(load_AR), placement.num_gpus, -1).sum(2))


def gpu_loads_of(call: EngineCall) -> GpuLoads:
    """How an engine's call says that it divides tokens."""
    if call.setup.split is Split.BEST:
        return best_loads
    if call.slot_counts_LR is not None:
        return MeasuredLoads(call.placement, call.slot_counts_LR)
    return even_loads


def _cells(placement: Placement) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """The index of each slot's expert in an array [L, E]."""
    return np.arange(len(placement.phy2log))[:, None], placement.phy2log
