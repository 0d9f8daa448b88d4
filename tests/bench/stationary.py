"""Stationary traffic, from which little can be gained, and the counts that its workers record.

Windows are drawn for each rank and its requests. Tokens are independent, or correlated by their
requests: each request has a topic for some windows, and each topic has its own experts.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tests.bench.lockstep import Counts, Recorded, by_slots
from tests.bench.played import STEPS
from trimtab_client import Placement, Scope

TOP = 8
"""Number of experts for each token."""

TOPICS = 16

Shares = npt.NDArray[np.float64]


class Traffic(NamedTuple):
    """The tokens sent to experts.

    Attributes:
        share_LE: float64 [L, E], each expert's share of its layer's tokens in the long run.
        counts_TWLE: int64 [T, W, L, E], tokens in each window from the requests of each rank.
    """

    share_LE: Shares
    counts_TWLE: Counts


def lognormal_shares(rng: np.random.Generator, layers: int, experts: int) -> Shares:
    """Shares of experts, [L, E], as uneven as those of 256-expert models."""
    return _normalised(rng.lognormal(0, 0.65, (layers, experts)))


def uniform_shares(layers: int, experts: int) -> Shares:
    """Equal shares, [L, E]."""
    return np.full((layers, experts), 1 / experts)


def independent(
    rng: np.random.Generator, share_LE: Shares, windows: int, tokens: int, ranks: int
) -> Traffic:
    """Independent tokens, `tokens` in each window and layer, spread randomly over the ranks."""
    counts_TLE = rng.multinomial(tokens, share_LE, (windows, len(share_LE)))
    counts_TLEW = rng.multinomial(counts_TLE, np.full(ranks, 1 / ranks))
    return Traffic(share_LE, np.moveaxis(counts_TLEW, 3, 1))


def correlated(
    rng: np.random.Generator,
    share_LE: Shares,
    windows: int,
    ranks: int,
    requests: int = 64,
    lasting: float = 2,
) -> Traffic:
    """Requests of one token per step, whose topics last `lasting` windows on average."""
    topic_XLE = _normalised(share_LE * rng.lognormal(0, 1, (TOPICS, *share_LE.shape)))
    topic_WQ = rng.integers(TOPICS, size=(ranks, requests // ranks))
    tokens, counts_TWLE = STEPS * TOP * requests // ranks, []
    for _ in range(windows):
        changes_WQ = rng.random(topic_WQ.shape) < 1 / lasting
        topic_WQ = np.where(changes_WQ, rng.integers(TOPICS, size=topic_WQ.shape), topic_WQ)
        counts_TWLE.append(rng.multinomial(tokens, _normalised(topic_XLE[topic_WQ].mean(1))))
    return Traffic(topic_XLE.mean(0), np.stack(counts_TWLE))


def recorded(traffic: Traffic, scope: Scope) -> list[Recorded]:
    """The counts that workers record in each window: one per rank, or one for all if GLOBAL."""
    workers = traffic.counts_TWLE.shape[1]
    if scope is Scope.SOURCE:
        return [partial(_constant, list(counts_WLE)) for counts_WLE in traffic.counts_TWLE]
    load_TLE = traffic.counts_TWLE.sum(1)
    if scope is Scope.GLOBAL:
        return [partial(_constant, [load_LE]) for load_LE in load_TLE]
    return [partial(by_slots, load_LE=load_LE, workers=workers) for load_LE in load_TLE]


def _constant(counts_WLE: list[Counts], _: Placement) -> list[Counts]:
    """The same counts whatever placement is in force."""
    return counts_WLE


def _normalised(weight_XE: Shares) -> Shares:
    """The weights scaled so that the last axis adds up to 1."""
    return np.asarray(weight_XE / weight_XE.sum(-1, keepdims=True))
