"""Whether switches have kept what they promised: judged on what was counted afterwards. Pure.

A plan promises a fall of the sum of squared GPU loads, by the load that chose it. What was counted
after it says what it was worth. That is an estimate without bias, since noise adds the same to
both placements' sums, but a rough one, and what noise alone would give is added to either side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_EARLIER = 0.8
"""What all earlier switches weigh, with each that is judged: one alone says little."""

_ENOUGH = 0.5
"""Who keeps this share of what was promised, in the mean, is trusted."""

_MOST_DISTRUST = 4.0


@dataclass(frozen=True)
class Judgement:
    """What a switch was worth, whether it took place or was aborted.

    Attributes:
        step: the last one counted before it was decided.
        steps: in which what it is judged by was counted.
        promised: fall of the squared GPU loads, where the mean is 1, in the sum over the GPUs
            and the mean over its layers.
        realised: the same by what was counted afterwards.
    """

    step: int
    steps: int
    promised: float
    realised: float


class Trust:
    """Of one deployment.

    Attributes:
        kept: share of what switches have promised, in the mean over the last ones; from 0 to 1.
    """

    def __init__(self) -> None:
        self.kept = 1.0

    def judge(self, judgement: Judgement, noise: float) -> None:
        """Take one more.

        Args:
            judgement: it.
            noise: what it may be wrong by.
        """
        promised = judgement.promised + noise
        share = (judgement.realised + noise) / promised if promised > 0 else 1.0
        self.kept = _EARLIER * self.kept + (1.0 - _EARLIER) * min(max(share, 0.0), 1.0)

    @property
    def distrust(self) -> float:
        """How many times as much moves have to gain: from 1 to 4."""
        return max(1.0, _ENOUGH / max(self.kept, _ENOUGH / _MOST_DISTRUST))


def squared_fall(before_LG: npt.NDArray[np.float64], after_LG: npt.NDArray[np.float64]) -> float:
    """By how much the squared GPU loads [L, G] fall, of a mean of 1, in the mean over the layers.

    Layers without load do not count.
    """
    mean_L1 = before_LG.mean(1, keepdims=True)
    loaded_L = mean_L1[:, 0] > 0
    if not loaded_L.any():
        return 0.0
    shares = (each_LG[loaded_L] / mean_L1[loaded_L] for each_LG in (before_LG, after_LG))
    before, after = (np.square(each).sum(1).mean() for each in shares)
    return float(before - after)
