"""What noise alone would seem to gain: below that, no expert moves. Pure.

A plan is judged on the counts that chose it, so it always seems to gain. How much it would seem
to gain where nothing is to be gained follows from the evidence. With n effective tokens in a
layer, overdispersion phi and G GPUs, a GPU has n / G of them, and its load has the relative
variance

    s2 = phi * G / n.

The largest of G normal numbers lies sqrt(2 ln G) standard deviations above their mean, or somewhat
less where they are few, and the smallest as far below (Fisher and Tippett, 1928; Cramer,
Mathematical Methods of Statistics, 28.6). So the heaviest and the lightest of G equal GPUs seem to
be apart by g = 2 sqrt(2 ln G s2) of the mean load, and a swap that shifts g / 2 between them seems
to lower the sum of squared loads by g**2 / 2 = 4 ln G s2, in squares of the mean load: with two
moves, by

    2 ln G s2  a move.

For the same reason G equal GPUs look like an imbalance of 1 + sqrt(2 ln G s2). A move has to gain
more than the first, a new plan has to end below what the second explains. `MARGIN` is for the
factor 2 ln G that the loads at hand may exceed.

That is a floor under one decision. Of the many that a deployment sees some would be above it by
chance. But noise alone spreads the G loads of a layer by s2: the sum of their squared distances
from the mean over s2 is then a chi-squared number with G - 1 degrees of freedom (Cochran, 1934),
whose mean is G - 1 and whose variance 2 (G - 1); and those of all layers add up. As long as neither
a layer nor all together lie `_SIGNIFICANT` standard deviations above that, there is no signal, and
nothing moves.

Where groups keep to their nodes, experts move inside them only: with the GPUs and tokens of one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trimtab_server.domain.topology import Topology
from trimtab_server.loads.evidence import Evidence

MARGIN = 1.3
"""Chosen by the cases of `make bench ARGS=null`, as the next ones."""

_SIGNIFICANT = 3.0

_ENOUGH = 0.08
"""Before noise looks like less imbalance than this, only what is plain is mended."""

_PLAIN = 0.2
"""Of an imbalance, beyond what noise looks like."""


@dataclass(frozen=True, eq=False)
class Floor:
    """What has to be exceeded.

    Attributes:
        parts: among which experts stay, nodes or all.
        gain_L: float64 [L], fall of the sum of squared GPU loads that noise may seem to give a
            move, in squares of the layer's mean GPU load; infinite without load.
        excess_L: float64 [L], imbalance above 1 that noise may look like; likewise.
        sigma_L: float64 [L], standard deviation of a GPU's load as a share of it; likewise.
    """

    parts: int
    gain_L: npt.NDArray[np.float64]
    excess_L: npt.NDArray[np.float64]
    sigma_L: npt.NDArray[np.float64]

    @property
    def enough(self) -> bool:
        """Whether any layer is known well enough for fine moves."""
        return bool((self.excess_L < _ENOUGH).any())

    def of(self, layer_A: npt.NDArray[np.int64]) -> Floor:
        """Of some layers."""
        return Floor(
            self.parts, self.gain_L[layer_A], self.excess_L[layer_A], self.sigma_L[layer_A]
        )

    def plain(self, imbalance_L: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        """The layers that are so far out of balance that little evidence will do, bool [L]."""
        return np.asarray(imbalance_L > (1.0 + self.excess_L) * (1.0 + _PLAIN))

    def exceeded(self, gpu_load_LG: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
        """The layers whose GPUs' loads noise alone does not explain, bool [L]."""
        load_LNg = gpu_load_LG.reshape(len(gpu_load_LG), self.parts, -1)
        mean_LN1 = load_LNg.mean(2, keepdims=True)
        share_LNg = np.divide(load_LNg, mean_LN1, np.ones_like(load_LNg), where=mean_LN1 > 0)
        freedom = load_LNg.shape[1] * (load_LNg.shape[2] - 1)
        known_L = np.isfinite(self.sigma_L)
        if freedom == 0 or not known_L.any():
            return np.zeros(len(gpu_load_LG), np.bool_)
        chi_L = np.square(share_LNg - 1.0).sum((1, 2)) / np.square(self.sigma_L)
        above_L = (chi_L - freedom) / math.sqrt(2 * freedom)
        together = above_L[known_L].sum() / math.sqrt(known_L.sum())
        exceeded_L = (above_L > _SIGNIFICANT) | (together > _SIGNIFICANT)
        return np.asarray(exceeded_L & known_L)


def floor_of(evidence: Evidence, topology: Topology, distrust: float = 1.0) -> Floor:
    """The floor under decisions that rest on this evidence.

    Args:
        evidence: of the load estimate.
        topology: GPUs, and the nodes that experts keep to.
        distrust: how many times as high gains have to be, where a deployment's switches have
            not kept what they promised; >= 1.
    """
    gpus = topology.num_gpus // topology.num_parts
    tokens_L = evidence.tokens_L / topology.num_parts
    unknown_L = np.full_like(tokens_L, math.inf)
    variance_L = np.divide(evidence.overdispersion * gpus, tokens_L, unknown_L, where=tokens_L > 0)
    gain_L = np.where(tokens_L > 0, MARGIN * distrust * 2 * math.log(gpus) * variance_L, math.inf)
    return Floor(topology.num_parts, gain_L, np.sqrt(gain_L), np.sqrt(variance_L))
