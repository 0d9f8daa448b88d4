"""A step of `improve`, and the comparison of steps.

Steps are tried in the reference's order, and a step replaces the best so far only if its
score is higher, so ties go to the first. Steps that cannot score higher are skipped: scores
rise with gains, so bounds on the gains and costs of some steps bound their scores.
"""

from __future__ import annotations

from typing import NamedTuple

from trimtab_server.solver.backends.cpu.compiled import compiled

_FREE = 2.0**-40
"""The cost of a step without net moves when gains per move are compared."""

_NEARLY_ONE = 1 - 2.0**-40
"""Lowers the bound of `gain_to_beat` by more than rounding can raise it."""

_NEVER = 1 << 62
"""Above all gains."""


class Step(NamedTuple):
    """A step: `expert` goes into `slot`; in a swap, the expert there goes to `other_slot`.

    Attributes:
        score: gain per net move; 0 for no step.
        cost: net moves.
        slot: the slot that changes.
        other_slot: the other slot of a swap, else NO_SLOT.
        expert: the expert that `slot` gets.
    """

    score: float
    cost: float
    slot: int
    other_slot: int
    expert: int


class Terms(NamedTuple):
    """The values that scores depend on: squared mean GPU load, moves left, and `min_gain`."""

    mean_squared: float
    left: float
    min_gain: float


@compiled
def score_of(gain: int, cost: float, terms: Terms) -> float:
    """Gain per net move; 0 if the step is not allowed."""
    share = float(gain) / terms.mean_squared
    if gain <= 0 or cost > terms.left or share < terms.min_gain * cost:
        return 0.0
    return share / max(cost, _FREE)


@compiled
def gain_to_beat(best: Step, cost: float, terms: Terms) -> int:
    """The gain that a step of at least this cost must exceed to score higher than `best`.

    This avoids the division of `score_of`, and leaves room for its rounding.
    """
    if cost > terms.left:
        return _NEVER
    needed = max(best.score * max(cost, _FREE), terms.min_gain * cost)
    return max(int(min(needed * terms.mean_squared * _NEARLY_ONE, float(_NEVER))), 0)
