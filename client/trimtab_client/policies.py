"""When a deployment's experts move, and what was decided about it."""

from __future__ import annotations

from dataclasses import InitVar, dataclass
from datetime import datetime
from enum import Enum

from trimtab_client.exceptions import invalid

FORMER = ("start_above", "stop_below", "min_gain")
"""Former settings of a policy."""

NO_LONGER = "it is no longer a setting, since noise is told from load by the tokens counted"
"""Said of what was one."""


class Mode(Enum):
    """What is made of a decision to move experts.

    OFF: nothing is decided, and experts move when an operator says so. SHADOW: decided and
    reported, but never offered. ACTIVE: decided and done. UNKNOWN: what a newer server says
    and this client does not know; it cannot be asked for.
    """

    OFF = "off"
    SHADOW = "shadow"
    ACTIVE = "active"
    UNKNOWN = "unknown"


class Reason(Enum):
    """Why experts move, or stay.

    NOT_READY: nothing can be offered now. TOO_SOON: the last decision is less than
    `every_steps` ago. NO_LOAD: no worker has reported any. NOT_ENOUGH_EVIDENCE: too few tokens
    to tell a small imbalance from noise. COOLDOWN: the last switch is less than `cooldown_steps`
    ago. BALANCED: noise explains how the loads of the GPUs differ. SMALL_GAIN: no move gains
    more than noise may seem to. TOO_COSTLY: less than the moves cost. IMPROVED: the best few
    moves. REPLANNED: a new plan. UNKNOWN: what a newer server says and this client does not know.
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
    """When experts move, and how many. None: as it is; in a new deployment, the server's default.

    What noise may explain is left alone, without any setting. The server checks the values, and
    names each field at fault.

    Attributes:
        mode: what is made of a decision: OFF, SHADOW or ACTIVE, or these names in lower case.
        half_life_steps: of the load estimate.
        window_steps: over so many steps the estimate is a mean. Both 0: over as many as have
            foretold the load best.
        every_steps: least steps from one decision to the next.
        cooldown_steps: least steps from a switch to the next.
        least_gain: of each move: least fall of a layer's sum of squared GPU loads, where their
            mean is 1, however sure it is.
        max_moves_per_layer: most net moves in a layer of one improvement.
        max_moves: the same over all layers; 0: no limit.
        replan_gap: a layer that an improvement leaves this share of the imbalance above what it
            could be gets all moves that gain, or, where they leave it as far above what a new
            plan reaches, the new plan.
        horizon_steps: over how many steps a gain has to pay for its moves.
        moe_share: how much of a step's time the experts' layers take, in (0, 1].
        node_bandwidth: bytes a second into or out of a GPU, inside its node.
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
                raise invalid(f"policy.{name}", f"{value!r}: {NO_LONGER}")
        if self.mode is not None:
            object.__setattr__(self, "mode", _mode(self.mode))


@dataclass(frozen=True, kw_only=True)
class Certainty:
    """How much a decision knew.

    Attributes:
        tokens: that the load estimate remembers of a layer, in effect; of the median layer that
            has load.
        overdispersion: variance of the counts, as a multiple of that of independent tokens.
        noise: imbalance that noise alone may look like, mean over layers with load.
        sigma: standard deviation of the predicted imbalances, by noise.
        distrust: how many times as much moves have to gain, since earlier switches have not
            kept what they promised; 1: they have.
    """

    tokens: float
    overdispersion: float
    noise: float
    sigma: float
    distrust: float


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What a switch was worth, by what was counted after it was decided; also of an aborted one.

    Attributes:
        step: the last one that workers had reported when it was decided; None: none.
        steps: in which what it is judged by was counted.
        promised: fall of the sum of squared GPU loads, where their mean is 1, mean over the
            layers that changed, as predicted.
        realised: the same by what was counted afterwards.
    """

    step: int | None
    steps: int
    promised: float
    realised: float


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A decision whether experts move.

    Attributes:
        time: when, in UTC; of several in a row, the last.
        step: the last one that workers had reported; None: none.
        reason: why they move, or stay.
        detail: what stands in the way, for people; empty but for NOT_READY.
        mode: the policy's then: only in ACTIVE are moves offered.
        imbalance_before: predicted, of what was in force; None: none was looked at.
        imbalance_after: the same of what was planned, chosen or not; as before where nothing
            was planned; None: none was looked at.
        moves: its net moves, over all layers.
        move_seconds: for which the busiest GPU would send or receive them.
        times: how many times in a row it was decided so; above 1 only where nothing was
            planned.
        certainty: how much was known; None: no load was.
        judged: what has come of an earlier switch; None: it has not come out with this decision.
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
