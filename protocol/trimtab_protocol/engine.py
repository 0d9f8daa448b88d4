"""What an engine that switches by itself tells the server (EngineService of the contract)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trimtab_protocol.messages import Report, Split, Topology
from trimtab_protocol.placement import IntArray, Placement


class EngineSetup(NamedTuple):
    """The part of a call that stays the same while the process that calls runs.

    `RebalanceRequest` in engine_service.proto says what its fields are.
    """

    deployment: str
    incarnation: int
    topology: Topology
    num_experts: int
    bytes_per_expert: int
    model: str = ""
    first_layer: int = 0
    observes: bool = False
    split: Split = Split.EVEN


@dataclass(frozen=True, eq=False)
class EngineCall:
    """An engine's question which placement to switch to.

    Attributes:
        placement: the one in force.
        report: the tokens that all ranks together have counted since the process began.
        step_seconds: mean duration of a step since the last report; None if it is unknown.
        slot_counts_LR: int64 [L, R], the tokens that each slot has processed since the last call;
            None if they were not counted.
    """

    setup: EngineSetup
    placement: Placement
    report: Report
    step_seconds: float | None = None
    slot_counts_LR: npt.NDArray[np.int64] | None = None


class SwitchedLayers(NamedTuple):
    """Layers that an engine has switched.

    Attributes:
        layers_K: int32 [K], ascending.
        phy2log_KR: int32 or int64 [K, R], the logical expert in each physical slot of them.
    """

    deployment: str
    incarnation: int
    layers_K: IntArray
    phy2log_KR: npt.NDArray[np.int32] | npt.NDArray[np.int64]
