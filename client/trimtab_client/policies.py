"""Policies, which say when a deployment's experts move, and the decisions made by them."""

from __future__ import annotations

from dataclasses import InitVar, dataclass
from datetime import datetime
from enum import Enum

from trimtab_client.exceptions import invalid

FORMER = ("start_above", "stop_below", "min_gain")
"""Former settings of a policy."""

_NO_LONGER = "it is no longer a setting, since noise is told from load by the tokens counted"


class Mode(Enum):
    """What the server does about imbalance.

    OFF: it decides nothing, and experts move only if an operator says so. SHADOW: it decides
    and reports, but offers no move. ACTIVE: it decides and moves experts. UNKNOWN: a newer server
    has a mode that this client does not know; it cannot be set.
    """

    OFF = "off"
    SHADOW = "shadow"
    ACTIVE = "active"
    UNKNOWN = "unknown"


class Reason(Enum):
    """Why experts move, or stay.

    Experts move by IMPROVED: the best few moves, or REPLANNED: a new plan. They stay because
    NOT_READY: nothing can be offered now. TOO_SOON: the last decision is less than `every_steps`
    ago. NO_LOAD: no worker has reported any. NOT_ENOUGH_EVIDENCE: too few tokens to tell a small
    imbalance from noise. COOLDOWN: the last switch is less than `cooldown_steps` ago. BALANCED:
    noise explains the differences between the loads of the GPUs. SMALL_GAIN: no move gains more
    than noise may seem to. TOO_COSTLY: the moves cost more than they gain. UNKNOWN: a newer server
    has a reason that this client does not know.
    """

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
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class Policy:
    """When experts move, and how many.

    A setting that is None stays as it is; in a new deployment it is the server's default.
    Imbalance that noise may explain is ignored, and no setting changes that. The server checks the
    values, and its error names each wrong one.

    Attributes:
        mode: OFF, SHADOW or ACTIVE, or these names in lower case.
        half_life_steps: half-life of the load estimate.
        window_steps: number of steps over which the estimate is a mean. If this and the half-life
            are 0, the server uses the number that has predicted the load best.
        every_steps: minimum number of steps between two decisions.
        cooldown_steps: minimum number of steps between two switches.
        least_gain: minimum gain of each move, however certain: by how much it reduces a layer's
            sum of squared GPU loads, where their mean is 1.
        max_moves_per_layer: maximum number of net moves in a layer of one improvement.
        max_moves: the same over all layers; 0 for no limit.
        replan_gap: how far above the possible an improvement may leave the imbalance of a layer,
            as a ratio. A layer beyond that gets all moves that gain, or the new plan if those
            moves leave it that far above the new plan.
        horizon_steps: number of steps over which a gain has to pay for its moves.
        moe_share: share of a step's time that the experts' layers take, in (0, 1].
        node_bandwidth: bytes per second into or out of a GPU, inside its node.
        cross_node_bandwidth: the same from or to another node.

    Raises:
        InvalidArgumentError: `mode` is unknown, or a setting is given that no longer exists:
            `start_above`, `stop_below` or `min_gain`.
    """

    mode: Mode | None = None
    half_life_steps: float | None = None
    window_steps: float | None = None
    every_steps: int | None = None
    cooldown_steps: int | None = None
    least_gain: float | None = None
    max_moves_per_layer: int | None = None
    max_moves: int | None = None
    replan_gap: float | None = None
    horizon_steps: int | None = None
    moe_share: float | None = None
    node_bandwidth: float | None = None
    cross_node_bandwidth: float | None = None
    start_above: InitVar[object] = None
    stop_below: InitVar[object] = None
    min_gain: InitVar[object] = None

    def __post_init__(self, start_above: object, stop_below: object, min_gain: object) -> None:
        for name, value in zip(FORMER, (start_above, stop_below, min_gain), strict=True):
            if value is not None:
                raise invalid(f"policy.{name}", f"{value!r}: {_NO_LONGER}")
        if self.mode is not None:
            object.__setattr__(self, "mode", _mode(self.mode))


@dataclass(frozen=True, kw_only=True)
class Certainty:
    """How certain the load estimate was at a decision.

    Attributes:
        tokens: effective number of tokens behind the estimate of a layer; of the median layer
            that has load.
        overdispersion: variance of the counts divided by that of independent tokens.
        noise: imbalance that noise alone may look like, mean over layers with load.
        sigma: standard deviation of the predicted imbalances due to noise.
        distrust: factor by which moves must gain more because earlier switches gained less than
            promised; 1 if they did not.
    """

    tokens: float
    overdispersion: float
    noise: float
    sigma: float
    distrust: float


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The gain of a switch, by the tokens counted after its decision; also of an aborted switch.

    A gain is the fall of the sum of squared GPU loads, where their mean is 1, as a mean over the
    layers that changed.

    Attributes:
        step: the last step that workers had reported at the decision; None if there was none.
        steps: number of steps whose tokens the judgement rests on.
        promised: the gain predicted by the plan.
        realised: the gain by the tokens counted afterwards.
    """

    step: int | None
    steps: int
    promised: float
    realised: float


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A decision whether experts move.

    Attributes:
        time: when it was made, in UTC; the last time if it was made several times in a row.
        step: the last step that workers had reported; None if there was none.
        reason: why experts move, or stay.
        detail: the obstacle if the reason is NOT_READY, for people; else empty.
        mode: the policy's mode at that time: only in ACTIVE are moves offered.
        imbalance_before: predicted imbalance of the placement then current; None if none was
            predicted.
        imbalance_after: the same of the plan, chosen or not; equal to `imbalance_before` if
            nothing was planned; None if none was predicted.
        moves: net moves of the plan, over all layers.
        move_seconds: how long the busiest GPU would send or receive for them.
        times: how many times in a row this was decided; above 1 only if nothing was planned.
        certainty: how certain the load estimate was; None if there was no load.
        judged: the judgement of an earlier switch that came with this decision; None if none did.
    """

    time: datetime
    step: int | None
    reason: Reason
    detail: str
    mode: Mode
    imbalance_before: float | None
    imbalance_after: float | None
    moves: int
    move_seconds: float
    times: int
    certainty: Certainty | None = None
    judged: Judgement | None = None


def _mode(value: object) -> Mode:
    try:
        return Mode(value)
    except ValueError as error:
        names = [mode.value for mode in Mode if mode is not Mode.UNKNOWN]
        raise invalid("policy.mode", f"{value!r} is not one of {names}") from error
