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
more than the first, a new plan has to end below what the second explains. That is the largest of
G numbers, on average; `MARGIN` makes it one that noise seldom reaches in thousands of decisions.

Where groups keep to their nodes, experts move inside them only: with the GPUs and tokens of one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trimtab_server.domain.topology import Topology
from trimtab_server.loads.evidence import Evidence

MARGIN = 1.5
"""Chosen by null cases: `make bench ARGS=null`."""

_ENOUGH = 0.5
"""With less evidence than makes noise look like this much imbalance, nothing is decided."""


@dataclass(frozen=True, eq=False)
class Floor:
    """What has to be exceeded.

    Attributes:
        gain_L: float64 [L], fall of the sum of squared GPU loads that noise may seem to give a
            move, in squares of the layer's mean GPU load; infinite without load.
        excess_L: float64 [L], imbalance above 1 that noise may look like; likewise.
        sigma_L: float64 [L], standard deviation of a GPU's load as a share of it; likewise.
    """

    gain_L: npt.NDArray[np.float64]
    excess_L: npt.NDArray[np.float64]
    sigma_L: npt.NDArray[np.float64]

    @property
    def enough(self) -> bool:
        """Whether any layer is known well enough for a decision."""
        return bool((self.excess_L < _ENOUGH).any())


def floor_of(evidence: Evidence, topology: Topology, distrust: float = 1.0) -> Floor:
    """The floor under decisions that rest on this evidence.

    Args:
        evidence: of the load estimate.
        topology: GPUs, and the nodes that experts keep to.
        distrust: how many times as high it is for a deployment whose switches have not kept
            what they promised; >= 1.
    """
    gpus = topology.num_gpus // topology.num_parts
    tokens_L = evidence.tokens_L / topology.num_parts
    unknown_L = np.full_like(tokens_L, math.inf)
    variance_L = np.divide(evidence.overdispersion * gpus, tokens_L, unknown_L, where=tokens_L > 0)
    gain_L = np.where(tokens_L > 0, MARGIN * distrust * 2 * math.log(gpus) * variance_L, math.inf)
    return Floor(gain_L, np.sqrt(gain_L), np.sqrt(variance_L))
