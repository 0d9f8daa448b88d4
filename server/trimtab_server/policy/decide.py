"""The decision whether experts move now, and its reasons. Pure.

It has two steps, since most decisions need no plan, and planning costs time: `before_planning`
decides whether to plan, and `decide` whether to use the plan.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

from trimtab_server.policy.floor import Floor
from trimtab_server.policy.policy import Policy


class Reason(Enum):
    """Why experts move or stay."""

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
"""Steps by which an estimate may fall short of a number of steps because of rounding."""

MOVES = frozenset({Reason.IMPROVED, Reason.REPLANNED})
"""The reasons with which experts move."""

_PLANNED = MOVES | {Reason.SMALL_GAIN, Reason.TOO_COSTLY}


@dataclass(frozen=True)
class Situation:
    """The state of a deployment before anything is planned.

    Attributes:
        step: the last step that workers have reported.
        decided_at: the step of the last decision that evaluated a load; -1 if there was none.
        switched_at: the step at which experts moved last; -1 if they never did.
        not_ready: why nothing can be offered; None if a placement can be offered.
        known_steps: how many steps the load estimate represents.
        step_seconds: duration of a step; 0 if it is not known yet.
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

    Its imbalance is heaviest GPU / mean GPU, averaged over the layers that have load. Layers run
    one after another, so this is the factor by which a step takes longer than it could. Layers
    without load are left out, such as dense layers that an inference engine numbers too.

    Attributes:
        before: predicted imbalance of the placement in force.
        after: predicted imbalance of this placement.
        moves: net moves over all layers.
        seconds: how long the busiest GPU sends or receives weights.
    """

    before: float
    after: float
    moves: int
    seconds: float

    @property
    def gain(self) -> float:
        """The fall of the imbalance, as a share of the imbalance before."""
        return 1.0 - self.after / self.before


@dataclass(frozen=True)
class Certainty:
    """How certain the load behind a decision was.

    Attributes:
        tokens: effective tokens of the load estimate in the median layer with load.
        overdispersion: see `Evidence`.
        noise: imbalance that noise alone may cause, averaged over the layers with load.
        sigma: standard deviation of the predicted imbalances due to noise.
        distrust: the factor by which moves have to gain more because earlier switches gained less
            than promised; 1 if they kept their promises.
    """

    tokens: float
    overdispersion: float
    noise: float
    sigma: float
    distrust: float


@dataclass(frozen=True)
class Decision:
    """A decision.

    Attributes:
        reason: why experts move or stay.
        candidate: the placement that was chosen or rejected; the placement in force if nothing was
            planned; None if no placement was evaluated.
        certainty: of the load; None if there was no load.
    """

    reason: Reason
    candidate: Candidate | None = None
    certainty: Certainty | None = None

    @property
    def moves(self) -> bool:
        """Whether experts move."""
        return self.reason in MOVES

    @property
    def planned(self) -> bool:
        """Whether a placement was planned."""
        return self.reason in _PLANNED


def before_planning(situation: Situation, policy: Policy) -> Reason | None:
    """Why nothing should be planned now; None if a plan may be useful."""
    now = situation
    if now.decided_at >= 0 and now.step < now.decided_at + policy.every_steps:
        return Reason.TOO_SOON
    if now.not_ready is not None:
        return Reason.NOT_READY
    # The load of a few steps is mostly noise, and a plan for noise would have to be undone.
    enough = min(policy.every_steps, policy.smoothing.max_steps)
    if now.known_steps < enough - _ROUNDING or now.step_seconds <= 0:
        return Reason.NO_LOAD
    if now.switched_at >= 0 and now.step < now.switched_at + policy.cooldown_steps:
        return Reason.COOLDOWN
    return None


def shifted_layers(
    imbalance_L: npt.NDArray[np.float64],
    reachable_L: npt.NDArray[np.float64],
    floor: Floor,
    policy: Policy,
) -> npt.NDArray[np.bool_]:
    """The layers whose imbalance is so far above the reachable one that their load shifted, [L].

    The distance must exceed both noise and `replan_gap`. These are independent, so their
    squares are added.

    Args:
        imbalance_L: [L], of a placement.
        reachable_L: [L], a lower bound on the imbalance, or the imbalance of a new plan.
        floor: the imbalance that noise may cause.
        policy: of the deployment.
    """
    explained_L = reachable_L * (1.0 + np.hypot(floor.excess_L, policy.replan_gap))
    return np.asarray(imbalance_L > explained_L)


def decide(candidate: Candidate, *, planned: bool, step_seconds: float, policy: Policy) -> Reason:
    """Decide whether a planned placement replaces the one in force.

    Args:
        candidate: the planned placement.
        planned: whether a layer of it was planned from scratch, and not improved by moves.
        step_seconds: duration of a step now.
        policy: of the deployment.
    """
    if candidate.moves == 0 or candidate.gain <= 0:
        return Reason.SMALL_GAIN
    # The time gained over the horizon has to be at least the time that the moves take. This
    # assumes the worst case: that serving stops while weights are transferred.
    saved = candidate.gain * step_seconds * policy.moe_share * policy.horizon_steps
    if saved < candidate.seconds:
        return Reason.TOO_COSTLY
    return Reason.REPLANNED if planned else Reason.IMPROVED
