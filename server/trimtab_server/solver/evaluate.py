"""evaluate: how evenly a placement spreads a load, and how evenly any placement could."""

from __future__ import annotations

from operator import index
from typing import Any

from trimtab_server.domain.arrays import as_amounts, check_placement, require_shape
from trimtab_server.domain.balance import Evaluation
from trimtab_server.domain.errors import require, require_integers
from trimtab_server.domain.topology import Topology
from trimtab_server.solver.backends.backend import Backend
from trimtab_server.solver.backends.select import BackendName, backend_for


def evaluate(
    phy2log: Any,
    load: Any,
    num_gpus: int,
    *,
    num_nodes: int = 1,
    num_groups: int = 1,
    current: Any = None,
    bytes_per_expert: int = 0,
    backend: BackendName | Backend = "auto",
) -> Evaluation:
    """Evaluate a placement, with an expert's load divided evenly over its replicas.

    Args:
        phy2log: int [L, R], the expert in each slot.
        load: [L, E], tokens of each expert; finite, >= 0.
        num_gpus: G; it divides R.
        num_nodes: N; it divides G.
        num_groups: router groups; with more than 1 the bound is for placements that
            keep each group on one node, and equally many groups on each node.
        current: int [L, R], the placement from which moves are counted.
        bytes_per_expert: weight bytes of one expert in one layer.
        backend: see `backend_for`.

    Raises:
        InvalidArgumentError: an argument breaks a rule above.
    """
    load_LE = as_amounts(load, "load")
    phy2log_LR = check_placement(phy2log, "phy2log", load_LE)
    require_integers(bytes_per_expert=bytes_per_expert)
    require(bytes_per_expert >= 0, "bytes_per_expert", f"{bytes_per_expert} is negative")
    topology = Topology(phy2log_LR.shape[1], num_gpus, num_nodes, num_groups)
    topology.check_experts(load_LE.shape[1])
    chosen = backend_for(backend, load_LE.device)
    moves = None
    if current is not None:
        current_LR = check_placement(current, "current", load_LE)
        require_shape(current_LR, "current", phy2log_LR, "phy2log")
        moves = chosen.moves(current_LR, phy2log_LR, load_LE.shape[1], topology.num_gpus)
    return Evaluation.of(
        *chosen.balance(phy2log_LR, load_LE, topology.num_gpus),
        chosen.bound(load_LE, topology),
        moves,
        index(bytes_per_expert),
    )
