"""The options of the solver's calls: topology, move budget and solver options.

Their fields are those of the messages in `protos/trimtab/v1`, which hold the rules. The
server checks the values and names each wrong field; the client refuses only what cannot be sent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from trimtab_protocol.messages import Topology as Topology

Effort = Literal["fast", "balanced"]
Objective = Literal["l2", "range"]


@dataclass(frozen=True)
class MoveBudget:
    """How much weight traffic an improvement of the current placement may cause.

    Attributes:
        max_moves_per_layer: maximum number of moves in any one layer; None for no limit.
        max_moves: maximum number of moves over all layers, which are made where they gain most;
            None for no limit.
        min_gain: minimum gain per move, as the fall of a layer's sum of squared GPU loads where the
            mean GPU load is 1; None for the server's default.
        cross_node_cost: cost of a move from another node, where a move inside a node costs 1; at
            least 1. None for 1.
    """

    max_moves_per_layer: int | None = None
    max_moves: int | None = None
    min_gain: float | None = None
    cross_node_cost: float | None = None


@dataclass(frozen=True)
class SolverOptions:
    """How hard the solver tries.

    Attributes:
        effort: preset for all options that are not set below; None for the server's default.
        seed: of the restarts, any integer, taken modulo 2**64. The same request with the same seed
            has the same answer.
        objective: what a refinement swap has to lower: the sum of squared GPU loads ("l2"), or the
            heaviest minus the lightest load ("range"). None for "l2".
        top_k: K, number of heaviest and of lightest GPUs considered in a refinement step.
        max_iterations: maximum number of refinement steps of a layer; 0 for none, -1 to continue
            until no swap gains.
        restarts: number of starts of the packing, of which the best is kept.
    """

    effort: Effort | None = None
    seed: int = 0
    objective: Objective | None = None
    top_k: int | None = None
    max_iterations: int | None = None
    restarts: int | None = None
