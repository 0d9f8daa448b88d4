"""What switches have promised, until it can be seen what has come of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trimtab_protocol.placement import Placement
from trimtab_server.domain.balance import loads_with
from trimtab_server.domain.placement import count_moves
from trimtab_server.domain.topology import Topology
from trimtab_server.engine.tallies import Counted
from trimtab_server.loads.estimates import Loads
from trimtab_server.loads.evidence import Evidence
from trimtab_server.policy.floor import floor_of
from trimtab_server.policy.trust import Judgement, Trust, squared_fall

_JUDGED_AFTER = 64
"""Steps after its decision, a switch is judged."""


class Promise(NamedTuple):
    """A switch as it was decided, of the layers that it changes.

    Attributes:
        step: the last one counted before.
        layer_A: those layers, ascending.
        was_A: what is in force in them.
        is_next_A: what is to be.
        load_AE: float64 [A, E], the load that it was decided upon.
        counted: all that was counted before, of all layers.
    """

    step: int
    layer_A: npt.NDArray[np.int64]
    was_A: Placement
    is_next_A: Placement
    load_AE: Loads
    counted: Counted

    @classmethod
    def of(
        cls,
        step: int,
        layer_A: npt.NDArray[np.int64],
        was: Placement,
        is_next: Placement,
        load_LE: Loads,
        counted: Counted,
    ) -> Promise:
        """Of placements, a load and counts of all layers."""
        placements = was.of_layers(layer_A), is_next.of_layers(layer_A)
        kept = Counted(counted.by, counted.tokens_LE[layer_A])
        return cls(step, layer_A, *placements, load_LE[layer_A], kept)

    def gain(self, load_AE: Loads) -> float:
        """By a load of its layers."""
        placements = self.was_A, self.is_next_A
        return squared_fall(*(loads_with(each, load_AE).numpy() for each in placements))


class Promises:
    """Of one deployment.

    Args:
        topology: of the deployment.

    Attributes:
        trust: in what it promises.
    """

    def __init__(self, topology: Topology) -> None:
        self.trust = Trust()
        self._topology = topology
        self._open = deque[Promise]()

    def make(self, promise: Promise) -> None:
        """A switch is on its way."""
        self._open.append(promise)

    def forget(self) -> None:
        """Steps begin anew: what was promised cannot be judged."""
        self._open.clear()

    def judged(
        self, step: int, counted: Callable[[], Counted], overdispersion: float
    ) -> Judgement | None:
        """What has come of the oldest, if it is time to say.

        None, too, where other processes count now, or a layer has had no token since.

        Args:
            step: the last that all have reported.
            counted: gives all that was counted.
            overdispersion: of the counts.
        """
        if not self._open or step < self._open[0].step + _JUDGED_AFTER:
            return None
        promise, now = self._open.popleft(), counted()
        if now.by != promise.counted.by:
            return None
        fresh_AE = (now.tokens_LE[promise.layer_A] - promise.counted.tokens_LE).astype(np.float64)
        fresh_A = fresh_AE.sum(1)
        if not fresh_A.all():
            return None
        gains = promise.gain(promise.load_AE), promise.gain(fresh_AE)
        judgement = Judgement(promise.step, step - promise.step, *gains)
        each_move = floor_of(Evidence(fresh_A, overdispersion), self._topology).gain_L.mean()
        moves = count_moves(promise.was_A, promise.is_next_A) / len(promise.layer_A)
        self.trust.judge(judgement, float(each_move) * moves)
        return judgement
