"""What a caller asks for: topology, move budget and solver options.

Their fields are those of the messages in `protos/trimtab/v1`, which hold the rules. The
server checks them, and names each field at fault; only what cannot be sent is refused here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Effort = Literal["fast", "balanced"]
Objective = Literal["l2", "range"]


@dataclass(frozen=True)
class Topology:
    """Where the experts of one model instance may lie.

    Attributes:
        num_replicas: R, physical expert slots of one layer over all GPUs; a
            multiple of `num_gpus`, at least the number of experts. Slot r lies on
            GPU r // (R / G).
        num_gpus: G, GPUs (expert-parallel ranks); a multiple of `num_nodes`.
        num_nodes: N, nodes. GPU g lies on node g // (G / N).
        num_groups: router groups of consecutive experts. 1: an expert may lie on
            any GPU. More: all experts of a group stay on one node.
    """

    num_replicas: int
    num_gpus: int
    num_nodes: int = 1
    num_groups: int = 1


@dataclass(frozen=True)
class MoveBudget:
    """How much weight traffic an improvement of the current placement may cause.

    Attributes:
        max_moves_per_layer: most moves in any one layer; None: no limit.
        max_moves: most moves over all layers, which go where a move gains most;
            None: no limit.
        min_gain: least gain per move, as the fall of a layer's sum of squared GPU
            loads where the mean GPU load is 1; None: the server's default.
        cross_node_cost: what a move from another node counts, where one inside a
            node counts 1; at least 1. None: 1.
    """

    max_moves_per_layer: int | None = None
    max_moves: int | None = None
    min_gain: float | None = None
    cross_node_cost: float | None = None


@dataclass(frozen=True)
class SolverOptions:
    """How hard the solver tries.

    Attributes:
        effort: preset for all that is not set below; None: the server's default.
            Without a GPU, "balanced" can take seconds for a large model: leave the
            call a timeout to match.
        seed: of the restarts, any integer, taken modulo 2**64. The same request
            with the same seed has the same answer.
        objective: what a refinement swap has to lower: the sum of squared GPU
            loads ("l2"), or max - min ("range"). None: "l2".
        top_k: K, heaviest and lightest GPUs taken into each refinement step.
        max_iterations: most refinement steps of a layer; 0: none; -1: until no
            swap gains.
        restarts: starts of the packing, of which the best is kept.
    """

    effort: Effort | None = None
    seed: int = 0
    objective: Objective | None = None
    top_k: int | None = None
    max_iterations: int | None = None
    restarts: int | None = None
