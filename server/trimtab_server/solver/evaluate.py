"""evaluate: how evenly a placement spreads a load, and how evenly one could."""

from __future__ import annotations

from operator import index
from typing import Any

from torch import Tensor

from trimtab_server.domain.arrays import as_amounts, check_phy2log
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
        num_groups: router groups; with more than 1 the bound is that of placements
            that keep each group on one node, and as many groups on each.
        current: int [L, R], the placement that moves are counted from.
        bytes_per_expert: weight bytes of one expert in one layer.
        backend: see `backend_for`.

    Raises:
        InvalidArgumentError: an argument breaks a rule above.
    """
    load_LE = as_amounts(load, "load")
    phy2log_LR = _placement_of(phy2log, "phy2log", load_LE).to(load_LE.device)
    require_integers(bytes_per_expert=bytes_per_expert)
    require(bytes_per_expert >= 0, "bytes_per_expert", f"{bytes_per_expert} is negative")
    topology = Topology(phy2log_LR.shape[1], num_gpus, num_nodes, num_groups)
    topology.check_experts(load_LE.shape[1])
    chosen = backend_for(backend, load_LE.device)
    moves = None
    if current is not None:
        current_LR = _placement_of(current, "current", load_LE).to(load_LE.device)
        require(
            current_LR.shape == phy2log_LR.shape,
            "current",
            f"shape {tuple(current_LR.shape)} differs from phy2log's {tuple(phy2log_LR.shape)}",
        )
        moves = chosen.moves(current_LR, phy2log_LR, load_LE.shape[1], topology.num_gpus)
    return Evaluation.of(
        *chosen.balance(phy2log_LR, load_LE, topology.num_gpus),
        chosen.bound(load_LE, topology),
        moves,
        index(bytes_per_expert),
    )


def _placement_of(phy2log: Any, name: str, load_LE: Tensor) -> Tensor:
    phy2log_LR = check_phy2log(phy2log, name, load_LE.shape[1])
    require(
        phy2log_LR.shape[0] == load_LE.shape[0],
        name,
        f"has {phy2log_LR.shape[0]} layers where load has {load_LE.shape[0]}",
    )
    return phy2log_LR
