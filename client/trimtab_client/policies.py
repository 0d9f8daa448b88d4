"""When a deployment's experts move, and what was decided about it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from trimtab_client.exceptions import invalid


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
    `every_steps` ago. NO_LOAD: no worker has reported any. COOLDOWN: the last switch is less
    than `cooldown_steps` ago. BALANCED: the imbalance is one to leave alone. SMALL_GAIN: less
    than `min_gain`. TOO_COSTLY: less than the moves cost. IMPROVED: the best few moves.
    REPLANNED: a new plan. UNKNOWN: what a newer server says and this client does not know.
    """

    NOT_READY = "not_ready"
    TOO_SOON = "too_soon"
    NO_LOAD = "no_load"
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

    An imbalance is the heaviest GPU's load / the mean GPU load, mean over layers: what a step
    takes longer than it could. The server checks the values, and names each field at fault.

    Attributes:
        mode: what is made of a decision: OFF, SHADOW or ACTIVE, or these names in lower case.
        half_life_steps: of the load estimate; 0: a window instead.
        window_steps: over so many steps the estimate is a mean; 0: a half-life instead.
        every_steps: least steps from one decision to the next.
        cooldown_steps: least steps from a switch to the next.
        start_above: predicted imbalance above which experts begin to move.
        stop_below: predicted imbalance at which they stop to.
        min_gain: least fall of the predicted imbalance for a switch, as a share of it.
        max_moves_per_layer: most net moves in a layer of one improvement.
        max_moves: the same over all layers; 0: no limit.
        replan_gap: where an improvement stays this share of the imbalance above what a new
            plan reaches, the new plan is taken.
        horizon_steps: over how many steps a gain has to pay for its moves.
        moe_share: how much of a step's time the experts' layers take, in (0, 1].
        node_bandwidth: bytes a second into or out of a GPU, inside its node.
        cross_node_bandwidth: the same from or to another node.

    Raises:
        InvalidArgumentError: `mode` is none.
    """

    mode: Mode | None = None
    half_life_steps: float | None = None
    window_steps: float | None = None
    every_steps: int | None = None
    cooldown_steps: int | None = None
    start_above: float | None = None
    stop_below: float | None = None
    min_gain: float | None = None
    max_moves_per_layer: int | None = None
    max_moves: int | None = None
    replan_gap: float | None = None
    horizon_steps: int | None = None
    moe_share: float | None = None
    node_bandwidth: float | None = None
    cross_node_bandwidth: float | None = None

    def __post_init__(self) -> None:
        if self.mode is not None:
            object.__setattr__(self, "mode", _mode(self.mode))


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
        imbalance_after: the same of what was planned, chosen or not; None: nothing was.
        moves: its net moves, over all layers.
        move_seconds: for which the busiest GPU would send or receive them.
        times: how many times in a row it was decided so; above 1 only where nothing was
            planned.
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


def _mode(value: object) -> Mode:
    try:
        return Mode(value)
    except ValueError as error:
        names = [mode.value for mode in Mode if mode is not Mode.UNKNOWN]
        raise invalid("policy.mode", f"{value!r} is not one of {names}") from error
