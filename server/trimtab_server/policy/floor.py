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
more than the first, a new plan has to end below what the second explains. `MARGIN` is for
what this leaves out: loads are not quite normal, and a deployment decides again and again.

That is a floor under one decision. Of the many that a deployment sees some would be above it by
chance. But noise alone spreads the G loads of a layer by s2: the sum of their squared distances
from the mean over s2 is then a chi-squared number with G - 1 degrees of freedom (Cochran, 1934),
whose mean is G - 1 and whose variance 2 (G - 1); and those of layers add up. A layer that does not
lie `_SIGNIFICANT` standard deviations above that, neither alone nor together with all others that
do not, shows no signal, and stays as it is.

Where groups keep to their nodes, few moves go inside them only: ln G is that of one node's GPUs,
and s2, with its tokens, is the same. What lies between nodes a new plan can mend.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trimtab_server.domain.topology import Topology
from trimtab_server.loads.evidence import Evidence

MARGIN = 1.3
"""Chosen by the cases of `make bench ARGS="null served aside"`, as the next three: with 1.2 more
moves, and less than 0.1 points more balance; with 1.5 a replay set aside misses its goal."""

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
        """The layers whose GPUs' loads noise alone does not explain, bool [L].

        Where groups keep to nodes, GPUs are compared inside each, and the nodes with each other.
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
        """The layers in which loads [L, X, Y] differ over Y by more than they would by chance."""
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
    """The floor under decisions that rest on this evidence.

    Args:
        evidence: of the load estimate.
        topology: GPUs, and the nodes that experts keep to.
        distrust: how many times as high gains have to be, where a deployment's switches have
            not kept what they promised; >= 1.
    """
    gpus, inside = topology.num_gpus, topology.num_gpus // topology.num_parts
    known_L = evidence.tokens_L >= 1.0
    variance_L = np.full_like(evidence.tokens_L, math.inf)
    np.divide(evidence.overdispersion * gpus, evidence.tokens_L, variance_L, where=known_L)
    least_L = np.where(known_L, MARGIN * distrust * 2 * variance_L, math.inf)
    gain_L, excess_L = (
        np.where(known_L, math.log(number) * least_L, math.inf) for number in (inside, gpus)
    )
    return Floor(topology.num_parts, gain_L, np.sqrt(excess_L), np.sqrt(variance_L))
