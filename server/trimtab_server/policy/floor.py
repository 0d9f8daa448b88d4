"""How much of an imbalance noise explains; a smaller gain moves no expert. Pure.

A plan is evaluated on the counts from which it was made, so it always seems to gain. How much it
would seem to gain if nothing could be gained follows from the evidence. With n effective tokens in
a layer, overdispersion phi and G GPUs, a GPU has n / G tokens, and its load has the relative
variance

    s2 = phi * G / n.

The largest of G normal numbers is sqrt(2 ln G) standard deviations above their mean, or a little
less if G is small, and the smallest as far below (Fisher and Tippett, 1928; Cramer, Mathematical
Methods of Statistics, 28.6). So the heaviest and the lightest of G equal GPUs seem to differ by
g = 2 sqrt(2 ln G s2) of the mean load, and a swap that shifts g / 2 between them seems to lower
the sum of squared loads by g**2 / 2 = 4 ln G s2, in squares of the mean load. A swap has two
moves, so each move seems to gain

    2 ln G s2.

For the same reason, G equal GPUs seem to have an imbalance of 1 + sqrt(2 ln G s2). A move has to
gain more than the first, and a new plan is needed only if the imbalance exceeds the second.
`MARGIN` covers what this neglects: loads are not exactly normal, and a deployment decides
repeatedly.

This is a floor under one decision. Of the many decisions in a deployment, some would exceed it by
chance. But noise alone spreads the G loads of a layer by s2: the sum of their squared distances
from the mean, divided by s2, then has a chi-squared distribution with G - 1 degrees of freedom
(Cochran, 1934), whose mean is G - 1 and whose variance is 2 (G - 1); and these values of several
layers add up. A layer has a signal if it lies `_SIGNIFICANT` standard deviations above the mean,
alone or together with all other layers that do not. Layers without a signal stay as they are.

If groups stay on their nodes, moves stay inside nodes: ln G is for the GPUs of one node, and s2
stays the same, since it depends on the tokens per GPU. Only a new plan can balance the nodes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trimtab_server.domain.topology import Topology
from trimtab_server.loads.evidence import Evidence

MARGIN = 1.3
"""The factor on gains that noise explains. This and the next three were chosen with the cases of
`make bench ARGS="null served aside"`: at 1.2 there are more moves for less than 0.1 points more
balance; at 1.5 a replay that was set aside for validation misses its goal."""

_SIGNIFICANT = 3.0
"""Standard deviations above the mean from which a signal is significant."""

_PRECISE_BELOW = 0.08
"""The load of a layer is known precisely if noise causes less imbalance than this. Until then, only
an obvious imbalance is corrected."""

_OBVIOUS = 0.2
"""An imbalance is obvious if it exceeds the one that noise may cause by this share of it."""


@dataclass(frozen=True, eq=False)
class Floor:
    """The values that a layer has to exceed; infinite for layers without load.

    Attributes:
        parts: how many parts experts stay in: the nodes, or 1.
        gain_L: float64 [L], by how much noise may make a move seem to lower the sum of squared
            GPU loads, in squares of the layer's mean GPU load.
        excess_L: float64 [L], imbalance above 1 that noise may cause.
        sigma_L: float64 [L], relative standard deviation of a GPU's load.
    """

    parts: int
    gain_L: npt.NDArray[np.float64]
    excess_L: npt.NDArray[np.float64]
    sigma_L: npt.NDArray[np.float64]

    @property
    def precise(self) -> bool:
        """Whether the load of any layer is known precisely enough for fine moves."""
        return bool((self.excess_L < _PRECISE_BELOW).any())

    def of(self, layer_A: npt.NDArray[np.int64]) -> Floor:
        """The floor of some layers."""
        return Floor(
            self.parts, self.gain_L[layer_A], self.excess_L[layer_A], self.sigma_L[layer_A]
        )

    def obvious(self, imbalance_L: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        """The layers whose imbalance is so high that little evidence is enough, bool [L]."""
        return np.asarray(imbalance_L > (1.0 + self.excess_L) * (1.0 + _OBVIOUS))

    def exceeded(self, gpu_load_LG: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        """The layers in which noise alone does not explain the loads of GPUs, bool [L].

        If groups stay on their nodes, the GPUs of each node are compared, and the nodes.
        """
        load_LNg = gpu_load_LG.reshape(len(gpu_load_LG), self.parts, -1)
        inside_L = self._unexplained(load_LNg, self.sigma_L)
        if self.parts == 1:
            return inside_L
        gpus = load_LNg.shape[2]
        between_L = self._unexplained(load_LNg.sum(2)[:, None], self.sigma_L / math.sqrt(gpus))
        return inside_L | between_L

    def _unexplained(
        self, load_LXY: npt.NDArray[np.float64], sigma_L: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.bool_]:
        """The layers in which loads [L, X, Y] vary over Y by more than chance explains."""
        mean_LX1 = load_LXY.mean(2, keepdims=True)
        share_LXY = np.divide(load_LXY, mean_LX1, np.ones_like(load_LXY), where=mean_LX1 > 0)
        freedom, known_L = load_LXY.shape[1] * (load_LXY.shape[2] - 1), np.isfinite(sigma_L)
        if freedom == 0 or not known_L.any():
            return np.zeros(len(load_LXY), np.bool_)
        chi_L = np.square(share_LXY - 1.0).sum((1, 2)) / np.square(sigma_L)
        above_L = (chi_L - freedom) / math.sqrt(2 * freedom)
        alone_L = (above_L > _SIGNIFICANT) & known_L
        others_L = known_L & ~alone_L
        together = above_L[others_L].sum() / math.sqrt(max(1, others_L.sum()))
        return np.asarray(alone_L | (others_L & (together > _SIGNIFICANT)))


def floor_of(evidence: Evidence, topology: Topology, distrust: float = 1.0) -> Floor:
    """The floor under decisions that are based on this evidence.

    Args:
        evidence: of the load estimate.
        topology: GPUs, and the nodes on which experts stay.
        distrust: factor on the gains needed because a deployment's switches gained less than
            promised; >= 1.
    """
    gpus, inside = topology.num_gpus, topology.num_gpus // topology.num_parts
    known_L = evidence.tokens_L >= 1.0
    variance_L = np.full_like(evidence.tokens_L, math.inf)
    np.divide(evidence.overdispersion * gpus, evidence.tokens_L, variance_L, where=known_L)
    scale_L = np.where(known_L, MARGIN * distrust * 2 * variance_L, math.inf)
    gain_L, excess_L = (
        np.where(known_L, math.log(number) * scale_L, math.inf) for number in (inside, gpus)
    )
    return Floor(topology.num_parts, gain_L, np.sqrt(excess_L), np.sqrt(variance_L))
