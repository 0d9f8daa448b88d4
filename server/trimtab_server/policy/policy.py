"""The policy of a deployment: when experts move, and how many."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from trimtab_server.domain.errors import require_all
from trimtab_server.loads.estimates import Smoothing


class Mode(Enum):
    """Whether decisions to move experts are made, and carried out."""

    OFF = "off"
    SHADOW = "shadow"
    ACTIVE = "active"


_NOISE_ONLY = "imbalance that noise explains is ignored, and all other imbalance is considered"

FORMER_SETTINGS: Mapping[str, str] = {
    "start_above": _NOISE_ONLY,
    "stop_below": _NOISE_ONLY,
    "min_gain": "each move has to gain more than noise explains, and more than least_gain",
}
"""Settings that no longer exist, and why they are not needed."""


@dataclass(frozen=True)
class Policy:
    """When experts move, and how many. The defaults suit all models.

    Imbalance that noise explains is always ignored; no setting controls that: see `Floor`.

    Attributes:
        mode: ACTIVE to offer decided placements, SHADOW to decide and report only, OFF to decide
            nothing.
        half_life_steps: half-life of the load estimate, an exponential average.
        window_steps: length of the load estimate's window, if it is a plain mean. If both are 0,
            the number of steps is adapted to the load: see `LoadMixture`.
        every_steps: minimum number of steps between two decisions.
        cooldown_steps: minimum number of steps between two switches.
        least_gain: by how much each move must lower its layer's sum of squared GPU loads at
            least, where the mean GPU load is 1, however certain the gain is.
        max_moves_per_layer: net moves allowed in a layer in one decision, unless its load shifted.
        max_moves: net moves allowed over all layers; 0 for no limit. New plans are not limited.
        replan_gap: the load of a layer has shifted if an improvement leaves its imbalance this
            share above the lowest possible one. The layer then gets all moves that gain; if they
            leave it this share above the imbalance of a new plan, it gets the new plan.
        horizon_steps: number of steps over which a gain has to pay for its moves.
        moe_share: share of the experts' layers in the duration of a step.
        node_bandwidth: bytes per second into or out of a GPU, inside its node.
        cross_node_bandwidth: bytes per second into or out of a GPU, from or to other nodes.

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
        lowest = {"every_steps": 1, "cooldown_steps": 0, "max_moves_per_layer": 0}
        lowest |= {"max_moves": 0, "replan_gap": 0, "horizon_steps": 0, "least_gain": 0}
        values = {name: getattr(self, name) for name in (*above_0, *lowest)}
        require_all(
            *((0 < values[n] < math.inf, n, f"{values[n]} is not above 0") for n in above_0),
            *((values[n] >= low, n, f"{values[n]} is below {low}") for n, low in lowest.items()),
            *((values[n] < math.inf, n, f"{values[n]} is not finite") for n in finite),
            (0 < self.moe_share <= 1, "moe_share", f"{self.moe_share} is not in (0, 1]"),
        )

    @property
    def smoothing(self) -> Smoothing:
        """The smoothing of the load estimate."""
        return Smoothing(self.half_life_steps, self.window_steps)
