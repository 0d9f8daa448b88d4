"""Compares the gains that switches promised with those that were counted afterwards. Pure.

A plan promises a fall of the sum of squared GPU loads, computed from the load that it was made
for. The tokens counted afterwards show its real gain. That estimate has no bias, since noise adds
the same to the sums of both placements, but it is rough. So the gain that noise alone would give is
added to both sides of the comparison.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_EARLIER_WEIGHT = 0.8
"""The weight of all earlier switches when another one is judged, since a single one says little."""

_TRUSTED_SHARE = 0.5
"""A deployment whose switches keep this share of their promises on average is trusted fully."""

_MAX_DISTRUST = 4.0
"""Bounds the gain that moves need, so that a deployment can regain trust by good switches."""


@dataclass(frozen=True)
class Judgement:
    """The promised and the realised gain of a switch, whether it was completed or aborted.

    Attributes:
        step: the last step counted before the decision.
        steps: the number of steps counted for the judgement.
        promised: fall of the squared GPU loads, where the mean is 1, summed over the GPUs and
            averaged over the switch's layers.
        realised: the same, computed from the tokens counted afterwards.
    """

    step: int
    steps: int
    promised: float
    realised: float


class Trust:
    """How far the promises of a deployment's switches can be trusted.

    Attributes:
        kept: the share of their promises that recent switches kept, from 0 to 1.
    """

    def __init__(self) -> None:
        self.kept = 1.0

    def judge(self, judgement: Judgement, noise: float) -> None:
        """Include one more switch.

        Args:
            judgement: of the switch.
            noise: the error that the judgement may have.
        """
        promised = judgement.promised + noise
        share = (judgement.realised + noise) / promised if promised > 0 else 1.0
        share = min(max(share, 0.0), 1.0)
        self.kept = _EARLIER_WEIGHT * self.kept + (1.0 - _EARLIER_WEIGHT) * share

    @property
    def distrust(self) -> float:
        """The factor by which moves have to gain more, from 1 to 4."""
        return max(1.0, _TRUSTED_SHARE / max(self.kept, _TRUSTED_SHARE / _MAX_DISTRUST))


def squared_fall(before_LG: npt.NDArray[np.float64], after_LG: npt.NDArray[np.float64]) -> float:
    """By how much the sum of squared GPU loads [L, G] falls, averaged over the layers with load.

    Loads are divided by the mean load of their layer.
    """
    loaded_L = before_LG.any(1)
    return float(squared_falls(before_LG, after_LG)[loaded_L].mean()) if loaded_L.any() else 0.0


def squared_falls(
    before_LG: npt.NDArray[np.float64], after_LG: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """See `squared_fall`, for each layer, [L]; 0 without load."""
    mean_L1 = before_LG.mean(1, keepdims=True)
    mean_L1 = np.where(mean_L1 > 0, mean_L1, 1.0)
    before_L, after_L = (np.square(each / mean_L1).sum(1) for each in (before_LG, after_LG))
    return np.asarray(before_L - after_L)
