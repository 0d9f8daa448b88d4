"""How much is known of a load: of how many tokens it is, and how far apart halves of it are. Pure.

A load estimate is a weighted sum of counts. Were tokens routed independently, the variance of an
expert's part would be that of so many independent tokens: of the *effective* ones, by Kish's rule
the square of the sum of weights over the sum of their squares. They are not: tokens of a request
go together. By how much more counts vary than independent ones would, their *overdispersion*, is
measured where a load has two halves that do not share a request: Pearson's statistic of
homogeneity over its degrees of freedom (McCullagh and Nelder, Generalized Linear Models, 4.5).
Taken of estimates rather than of single counts, it sees requests that last as well.
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
    """What a load estimate rests on.

    Attributes:
        tokens_L: float64 [L], effective tokens of each layer; 0 for one without load.
        overdispersion: variance of the counts, as a multiple of that of independent tokens; >= 1.
        halves_HLE: float64 [2, L, E], tokens of each half in a time, the same for both; None:
            there are no two halves.
    """

    tokens_L: npt.NDArray[np.float64]
    overdispersion: float
    halves_HLE: Loads | None = None

    @property
    def tokens(self) -> float:
        """Of the median layer that has any; 0: none has."""
        known_L = self.tokens_L[self.tokens_L > 0]
        return float(np.median(known_L)) if len(known_L) else 0.0


class Known(NamedTuple):
    """A load, float64 [L, E] in tokens a step, and what it rests on."""

    load_LE: Loads
    evidence: Evidence


def from_rates(
    rates: Mapping[str, Loads], steps: Mapping[str, float], halves: Mapping[str, int] | None
) -> Evidence:
    """What a sum of workers' rates rests on.

    Args:
        rates: tokens a step of each worker, float64 [L, E]; at least one.
        steps: how many steps of equal weight each rate is of, in effect; above 0.
        halves: 0 or 1 for each worker, where no two count the same requests; else None.
    """
    total_LE = np.sum([rates[worker] for worker in sorted(rates)], axis=0)
    total_L = total_LE.sum(1)
    # Of independent tokens, n in s steps, a rate has the variance rate / s; they add up.
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
    """How much more two independent estimates of one load differ than independent tokens would.

    Args:
        first_LE: float64 [L, E], effective tokens of each expert.
        second_LE: the same of the other half, in the same unit.

    Returns:
        The mean over the layers that both have load in; 1 where it would be below, or unknown.
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
