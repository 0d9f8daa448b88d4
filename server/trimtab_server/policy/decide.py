"""The decision whether experts move now: a pure function, with its reasons.

Kept in two halves, since planning is work that most decisions can do without: `before_planning`
says whether there is any use in it, `decide` what to make of what was planned.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

from trimtab_server.policy.floor import Floor
from trimtab_server.policy.policy import Policy


class Reason(Enum):
    """Why experts move, or stay."""

    NOT_READY = "not_ready"
    TOO_SOON = "too_soon"
    NO_LOAD = "no_load"
    NOT_ENOUGH_EVIDENCE = "not_enough_evidence"
    COOLDOWN = "cooldown"
    BALANCED = "balanced"
    SMALL_GAIN = "small_gain"
    TOO_COSTLY = "too_costly"
    IMPROVED = "improved"
    REPLANNED = "replanned"


_ROUNDING = 1e-6

MOVES = frozenset({Reason.IMPROVED, Reason.REPLANNED})
"""With these, experts move."""

_PLANNED = MOVES | {Reason.SMALL_GAIN, Reason.TOO_COSTLY}


@dataclass(frozen=True)
class Situation:
    """What is known before anything is planned.

    Attributes:
        step: the last that workers have reported.
        decided_at: the step of the last decision that had this far to go; -1: none.
        switched_at: the step at which experts moved last; -1: never.
        not_ready: why nothing can be offered; None if it can.
        known_steps: for how many steps the load estimate stands.
        step_seconds: what a step takes; 0: not known yet.
    """

    step: int
    decided_at: int
    switched_at: int
    not_ready: str | None
    known_steps: float
    step_seconds: float


@dataclass(frozen=True)
class Candidate:
    """A placement that could be next.

    An imbalance is heaviest GPU / mean GPU, in the mean over the layers that have load: they run
    one after another, so this is what a step takes longer than it could. Layers without load, such
    as dense ones that an engine numbers too, are left out.

    Attributes:
        before: predicted imbalance of what is in force.
        after: the same of this one.
        moves: net, over all layers.
        seconds: that the busiest GPU needs to send or receive them.
    """

    before: float
    after: float
    moves: int
    seconds: float

    @property
    def gain(self) -> float:
        """Fall of the imbalance, as a share of it."""
        return 1.0 - self.after / self.before


@dataclass(frozen=True)
class Certainty:
    """How much a decision knew.

    Attributes:
        tokens: effective ones of the load estimate, of the median layer that has any.
        overdispersion: see `Evidence`.
        noise: imbalance that noise alone may look like, in the mean over layers with load.
        sigma: standard deviation of the predicted imbalances, by noise.
        distrust: how many times as much moves have to gain since earlier switches have not kept
            what they promised; 1: they have.
    """

    tokens: float
    overdispersion: float
    noise: float
    sigma: float
    distrust: float


@dataclass(frozen=True)
class Decision:
    """What came of it.

    Attributes:
        reason: why.
        candidate: that was chosen, or that was not good enough, or what is in force where nothing
            was planned; None: nothing was looked at.
        certainty: of the load it rests on; None: there was none.
    """

    reason: Reason
    candidate: Candidate | None = None
    certainty: Certainty | None = None

    @property
    def moves(self) -> bool:
        """Whether experts are to move."""
        return self.reason in MOVES

    @property
    def planned(self) -> bool:
        """Whether anything was planned."""
        return self.reason in _PLANNED


def before_planning(situation: Situation, policy: Policy) -> Reason | None:
    """Why there is no use in planning; None if there may be."""
    now = situation
    if now.decided_at >= 0 and now.step < now.decided_at + policy.every_steps:
        return Reason.TOO_SOON
    if now.not_ready is not None:
        return Reason.NOT_READY
    # What a few steps say is mostly noise, and a plan for noise has to be undone.
    enough = min(policy.every_steps, policy.smoothing.most_steps)
    if now.known_steps < enough - _ROUNDING or now.step_seconds <= 0:
        return Reason.NO_LOAD
    if now.switched_at >= 0 and now.step < now.switched_at + policy.cooldown_steps:
        return Reason.COOLDOWN
    return None


def far_off(
    imbalance_L: npt.NDArray[np.float64],
    least_L: npt.NDArray[np.float64],
    floor: Floor,
    policy: Policy,
) -> npt.NDArray[np.bool_]:
    """The layers that lie so far above an imbalance that their load has shifted, [L].

    Further than noise looks like, and than `replan_gap`: both, which have nothing to do with each
    other, in the sum of their squares.

    Args:
        imbalance_L: [L], of a placement.
        least_L: [L], that no placement is below, or that a new plan comes to.
        floor: of what noise may look like.
        policy: the deployment's.
    """
    explained_L = least_L * (1.0 + np.hypot(floor.excess_L, policy.replan_gap))
    return np.asarray(imbalance_L > explained_L)


def decide(candidate: Candidate, *, planned: bool, step_seconds: float, policy: Policy) -> Reason:
    """Keep what is in force, or take what was planned.

    Args:
        candidate: that.
        planned: whether any layer of it has a new plan.
        step_seconds: what a step takes now.
        policy: the deployment's.
    """
    if candidate.moves == 0 or candidate.gain <= 0:
        return Reason.SMALL_GAIN
    if not _pays(candidate, step_seconds, policy):
        return Reason.TOO_COSTLY
    return Reason.REPLANNED if planned else Reason.IMPROVED


def _pays(candidate: Candidate, step_seconds: float, policy: Policy) -> bool:
    """Whether the gain over the horizon is more than the time that the moves take.

    As if serving stood still while weights are under way: the worst that it can do.
    """
    saved = candidate.gain * step_seconds * policy.moe_share * policy.horizon_steps
    return saved >= candidate.seconds
