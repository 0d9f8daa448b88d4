"""improve: improves a placement by the best few moves."""

from __future__ import annotations

from operator import index
from typing import Any

from torch import Tensor

from trimtab_server.domain.arrays import as_amounts, check_placement
from trimtab_server.domain.errors import require, require_integers
from trimtab_server.domain.moves import Moves
from trimtab_server.domain.topology import Topology
from trimtab_server.solver.backends.backend import Backend
from trimtab_server.solver.backends.select import BackendName, backend_for
from trimtab_server.solver.budget import DEFAULT_MIN_GAIN, Budget

DEFAULT_TOP_K = 4
"""The same as in packing. In `make bench ARGS=constants`, 2 to 32 differ by at most 0.0006."""


def improve(
    phy2log: Any,
    load: Any,
    num_gpus: int,
    *,
    num_nodes: int = 1,
    num_groups: int = 1,
    max_moves_per_layer: int | None = None,
    max_moves: int | None = None,
    min_gain: float | tuple[float, ...] = DEFAULT_MIN_GAIN,
    cross_node_cost: float = 1.0,
    top_k: int = DEFAULT_TOP_K,
    backend: BackendName | Backend = "auto",
) -> tuple[Tensor, Moves]:
    """Improve a placement by the steps that gain most for each expert they move.

    Each layer takes one step at a time: it swaps two experts between a heavy GPU and a light
    one, or transfers a slot from an expert that has several to one that lies on a heavy GPU.
    Of the steps within the budget, it takes the one with the largest gain (fall of the sum of
    squared GPU loads) per net move. Moves are counted net against `phy2log`, so undoing one
    has a negative cost. A budget for all layers goes to the steps that gain most per move.

    A step never leaves a GPU heavier than the heaviest was before it, counting all that a
    transfer changes: the other replicas of the expert that gives up the slot get heavier, and
    those of the expert that gets it lighter. No GPU gets a second replica of an expert, and with
    `num_groups` > 1 no group reaches a node that held none of its experts.

    Args:
        phy2log: int [L, R], the placement in force.
        load: [L, E], tokens of each expert; finite, >= 0.
        num_gpus: G; it divides R.
        num_nodes: N; it divides G.
        num_groups: router groups; more than 1 keeps them on their nodes.
        max_moves_per_layer: see `Budget`, as for the next three.
        max_moves: see `Budget`.
        min_gain: see `Budget`.
        cross_node_cost: see `Budget`.
        top_k: K: swaps are between the K heaviest GPUs and the K lightest, and slots go
            to experts of the K heaviest.
        backend: see `backend_for`.

    Returns:
        phy2log int64 [L, R], on the device of `load`; and the moves to it.

    Raises:
        InvalidArgumentError: an argument breaks a rule above.
    """
    load_LE = as_amounts(load, "load")
    experts = load_LE.shape[1]
    start_LR = check_placement(phy2log, "phy2log", load_LE)
    topology = Topology(start_LR.shape[1], num_gpus, num_nodes, num_groups)
    topology.check_experts(experts)
    require_integers(top_k=top_k)
    require(top_k >= 1, "top_k", f"{top_k} is below 1")
    budget = Budget(max_moves_per_layer, max_moves, min_gain, cross_node_cost)
    chosen = backend_for(backend, load_LE.device)
    top_k = min(index(top_k), topology.num_gpus)
    new_LR = chosen.improve(start_LR, load_LE, topology, budget, top_k).phy2log_LR
    return new_LR, chosen.moves(start_LR, new_LR, experts, topology.num_gpus)
