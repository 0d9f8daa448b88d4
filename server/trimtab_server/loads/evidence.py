"""How certain a load estimate is: its effective tokens, and their overdispersion. Pure.

A load estimate is a weighted sum of counts. If tokens were routed independently, an expert's part
would have the variance of so many independent tokens: the *effective* tokens, which by Kish's
rule are the squared sum of the weights over the sum of their squares. But the tokens of a request
are routed alike. The factor by which counts vary more than independent ones, their
*overdispersion*, can be measured if a load has two halves that share no request: it is Pearson's
statistic of homogeneity over its degrees of freedom (McCullagh and Nelder, Generalized Linear
Models, 4.5). Computed from estimates instead of single counts, it also covers long requests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trimtab_server.loads.estimates import Loads


@dataclass(frozen=True, eq=False)
class Evidence:
    """The evidence for a load estimate.

    Attributes:
        tokens_L: float64 [L], effective tokens of each layer; 0 for layers without load.
        overdispersion: variance of the counts, as a multiple of that of independent tokens; >= 1.
        halves_HLE: float64 [2, L, E], tokens of each half in the same time; None if the load
            does not have two halves.
    """

    tokens_L: npt.NDArray[np.float64]
    overdispersion: float
    halves_HLE: Loads | None = None

    @property
    def tokens(self) -> float:
        """Effective tokens of the median layer with load; 0 if no layer has load."""
        known_L = self.tokens_L[self.tokens_L > 0]
        return float(np.median(known_L)) if len(known_L) else 0.0


class Known(NamedTuple):
    """A load estimate, float64 [L, E] in tokens per step, and the evidence for it."""

    load_LE: Loads
    evidence: Evidence


def from_rates(
    total_LE: Loads,
    rates: Mapping[str, Loads],
    steps: Mapping[str, float],
    halves: Mapping[str, int] | None,
) -> Evidence:
    """The evidence for a sum of workers' rates.

    Args:
        total_LE: the sum, float64 [L, E].
        rates: tokens per step of each worker, float64 [L, E]; at least one worker.
        steps: the effective steps of each rate, above 0; see `Estimate.effective_steps`.
        halves: 0 or 1 for each worker; None if two workers may count the same requests.
    """
    total_L = total_LE.sum(1)
    # The rate of n independent tokens in s steps has the variance rate / s; variances add up.
    variance_L = sum(rates[worker].sum(1) / steps[worker] for worker in sorted(rates))
    steps_L = np.divide(total_L, variance_L, out=np.zeros_like(total_L), where=variance_L > 0)
    if halves is None or len(set(halves.values())) < 2:
        return Evidence(total_L * steps_L, 1.0)
    halves_HLE = np.stack([np.zeros_like(total_LE)] * 2)
    for worker in sorted(rates):
        halves_HLE[halves[worker]] += rates[worker]
    if not halves_HLE.any((1, 2)).all():
        return Evidence(total_L * steps_L, 1.0)
    spread = overdispersion(*(halves_HLE * steps_L[:, None]))
    return Evidence(total_L * steps_L, spread, halves_HLE)


def overdispersion(first_LE: Loads, second_LE: Loads) -> float:
    """How much more two independent estimates of one load vary than independent tokens would.

    Args:
        first_LE: float64 [L, E], effective tokens of each expert in one half.
        second_LE: the same for the other half, in the same unit.

    Returns:
        The mean over the layers in which both halves have load; at least 1, and 1 if unknown.
    """
    first_L1, second_L1 = first_LE.sum(1, keepdims=True), second_LE.sum(1, keepdims=True)
    both_L = (first_L1 > 0)[:, 0] & (second_L1 > 0)[:, 0]
    if not both_L.any():
        return 1.0
    first_LE, second_LE = first_LE[both_L], second_LE[both_L]
    odds_L1 = np.sqrt(second_L1[both_L] / first_L1[both_L])
    total_LE = first_LE + second_LE
    differ_LE = np.square(odds_L1 * first_LE - second_LE / odds_L1)
    terms_LE = np.divide(differ_LE, total_LE, out=np.zeros_like(total_LE), where=total_LE > 0)
    freedom_L = np.maximum((total_LE > 0).sum(1) - 1, 1)
    return max(1.0, float((terms_LE.sum(1) / freedom_L).mean()))
