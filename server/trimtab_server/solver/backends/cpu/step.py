"""A step of `improve`, and how steps are compared.

Steps are tried in the reference's order, and one replaces the best so far only if its
score is higher, so ties go to the first. What cannot score higher is passed over: scores
rise with gains, so a bound on the gains of some steps and on their cost bounds their score.
"""

from __future__ import annotations

from typing import NamedTuple

from trimtab_server.solver.backends.cpu.compiled import compiled

_FREE = 2.0**-40
"""What a step that costs no net move counts when gains per move are compared."""

_NEARLY_ONE = 1 - 2.0**-40
_NEVER = 1 << 62


class Step(NamedTuple):
    """A step: `expert` goes into `slot`; in a swap, what was there into `other_slot`.

    Attributes:
        score: gain for each net move; 0 for no step.
        cost: net moves.
        slot: the slot that changes.
        other_slot: the other one of a swap, else NO_SLOT.
        expert: what `slot` gets.
    """

    score: float
    cost: float
    slot: int
    other_slot: int
    expert: int


class Terms(NamedTuple):
    """What scores are computed from: mean GPU load squared, moves left, least gain."""

    mean_squared: float
    left: float
    min_gain: float


@compiled
def score_of(gain: int, cost: float, terms: Terms) -> float:
    """Gain for each net move; 0 for a step that may not be taken."""
    share = float(gain) / terms.mean_squared
    if gain <= 0 or cost > terms.left or share < terms.min_gain * cost:
        return 0.0
    return share / max(cost, _FREE)


@compiled
def gain_to_beat(best: Step, cost: float, terms: Terms) -> int:
    """Steps of at least this cost can only score higher if they gain more than this.

    Without a division, and so with room for its rounding.
    """
    if cost > terms.left:
        return _NEVER
    needed = max(best.score * max(cost, _FREE), terms.min_gain * cost)
    return max(int(min(needed * terms.mean_squared * _NEARLY_ONE, float(_NEVER))), 0)
