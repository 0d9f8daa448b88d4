"""What a deployment's operators want of its balance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from trimtab_server.domain.errors import require_all
from trimtab_server.loads.estimates import Smoothing


class Mode(Enum):
    """What is made of a decision to move experts."""

    OFF = "off"
    SHADOW = "shadow"
    ACTIVE = "active"


NO_LONGER: Mapping[str, str] = {
    "start_above": "what noise may explain is left alone, and all else is looked at",
    "stop_below": "what noise may explain is left alone, and all else is looked at",
    "min_gain": "each move has to gain more than noise may seem to, and than least_gain",
}
"""Former settings, and why they are no longer needed."""


@dataclass(frozen=True)
class Policy:
    """When experts move, and how many. The defaults are one set for all models.

    What noise may explain is left alone, without any setting: see `Floor`.

    Attributes:
        mode: ACTIVE: offer what is decided. SHADOW: decide and report only. OFF: decide nothing.
        half_life_steps: of the load estimate.
        window_steps: over so many steps the estimate is a mean. Both 0: over as many as have
            foretold the load best.
        every_steps: least steps from one decision to the next.
        cooldown_steps: least steps from a switch to the next.
        least_gain: of each move: least fall of a layer's sum of squared GPU loads, where their
            mean is 1, however sure it is.
        max_moves_per_layer: most net moves in a layer of one decision, unless it has shifted.
        max_moves: the same over all layers; 0: no limit. A new plan is not held to it.
        replan_gap: a layer that an improvement leaves this share of the imbalance above what it
            could be has shifted: it gets all the moves that gain, or, where they leave it as far
            above what a new plan reaches, the new plan.
        horizon_steps: over how many steps a gain has to pay for its moves.
        moe_share: of a step's time, how much the experts' layers take.
        node_bandwidth: bytes a second into or out of a GPU, inside its node.
        cross_node_bandwidth: the same from or to another node.

    Raises:
        InvalidArgumentError: a value is out of its range.
    """

    mode: Mode = Mode.ACTIVE
    half_life_steps: float = 0.0
    window_steps: float = 0.0
    every_steps: int = 16
    cooldown_steps: int = 0
    least_gain: float = 0.001
    max_moves_per_layer: int = 4
    max_moves: int = 0
    replan_gap: float = 0.1
    horizon_steps: int = 1000
    moe_share: float = 0.5
    node_bandwidth: float = 100e9
    cross_node_bandwidth: float = 25e9

    def __post_init__(self) -> None:
        _ = self.smoothing
        above_0 = ("node_bandwidth", "cross_node_bandwidth")
        finite = ("least_gain", "replan_gap")
        least = {"every_steps": 1, "cooldown_steps": 0, "max_moves_per_layer": 0}
        least |= {"max_moves": 0, "replan_gap": 0, "horizon_steps": 0, "least_gain": 0}
        values = {name: getattr(self, name) for name in (*above_0, *least)}
        require_all(
            *((0 < values[n] < math.inf, n, f"{values[n]} is not above 0") for n in above_0),
            *((values[n] >= low, n, f"{values[n]} is below {low}") for n, low in least.items()),
            *((values[n] < math.inf, n, f"{values[n]} is not finite") for n in finite),
            (0 < self.moe_share <= 1, "moe_share", f"{self.moe_share} is not in (0, 1]"),
        )

    @property
    def smoothing(self) -> Smoothing:
        """Of the load estimate."""
        return Smoothing(self.half_life_steps, self.window_steps)
