"""The gains that switches promised, until the tokens counted afterwards show what they gained."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trimtab_protocol.placement import Placement
from trimtab_server.domain.placement import count_moves, of_layers
from trimtab_server.domain.topology import Topology
from trimtab_server.engine.gpu_loads import GpuLoads
from trimtab_server.engine.load_aggregator import TotalCounts
from trimtab_server.loads.estimates import Loads
from trimtab_server.loads.evidence import Evidence
from trimtab_server.policy.floor import floor_of
from trimtab_server.policy.trust import Judgement, Trust, squared_fall

_JUDGED_AFTER = 64
"""Steps from the decision of a switch until the switch is judged."""


class Promise(NamedTuple):
    """A switch as it was decided.

    Attributes:
        step: the last step counted before the decision.
        layer_A: the layers that it changes, ascending.
        before: the placement before the switch.
        after: the placement after it.
        load_LE: the load that the decision was based on, float64 [L, E].
        counted: all tokens that were counted before.
    """

    step: int
    layer_A: npt.NDArray[np.int64]
    before: Placement
    after: Placement
    load_LE: Loads
    counted: TotalCounts

    def gain(self, load_LE: Loads, gpu_loads: GpuLoads) -> float:
        """The gain of the switch for a load, over the layers that it changes."""
        load_AE = load_LE[self.layer_A]
        placements = (of_layers(each, self.layer_A) for each in (self.before, self.after))
        loads = (gpu_loads(each, load_AE, self.layer_A).numpy() for each in placements)
        return squared_fall(*loads)


class Promises:
    """The switches of one deployment that have not been judged yet.

    Attributes:
        trust: how far the switches judged so far have kept their promises.
    """

    def __init__(self, topology: Topology) -> None:
        self.trust = Trust()
        self._topology = topology
        self._open = deque[Promise]()

    def add(self, promise: Promise) -> None:
        """Add a switch that has begun."""
        self._open.append(promise)

    def clear(self) -> None:
        """Drop all promises: steps count from the beginning again, so none can be judged."""
        self._open.clear()

    def judge_oldest(
        self,
        step: int,
        total_counts: Callable[[], TotalCounts],
        overdispersion: float,
        gpu_loads: GpuLoads,
    ) -> Judgement | None:
        """Judge the oldest switch; returns None if it is too early.

        Also None if other processes count now, or a layer has had no token since.

        Args:
            step: the last step that all workers have reported.
            total_counts: returns all tokens that were counted.
            overdispersion: of the counts.
            gpu_loads: predicts the load of each GPU.
        """
        if not self._open or step < self._open[0].step + _JUDGED_AFTER:
            return None
        promise, now = self._open.popleft(), total_counts()
        if now.by != promise.counted.by:
            return None
        fresh_LE = (now.tokens_LE - promise.counted.tokens_LE).astype(np.float64)
        fresh_A = fresh_LE[promise.layer_A].sum(1)
        if not fresh_A.all():
            return None
        loads = promise.load_LE, fresh_LE
        gains = tuple(promise.gain(each_LE, gpu_loads) for each_LE in loads)
        judgement = Judgement(promise.step, step - promise.step, *gains)
        each_move = floor_of(Evidence(fresh_A, overdispersion), self._topology).gain_L.mean()
        moves = count_moves(promise.before, promise.after) / len(promise.layer_A)
        self.trust.judge(judgement, float(each_move) * moves)
        return judgement
