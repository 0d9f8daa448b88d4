"""Drop-ins with the signatures of the field: DeepSeek's EPLB and the engines' policies."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trimtab_server.domain.arrays import as_amounts, replica_counts
from trimtab_server.domain.errors import require_integers
from trimtab_server.domain.topology import Topology
from trimtab_server.solver.backends.backend import Backend
from trimtab_server.solver.backends.select import BackendName
from trimtab_server.solver.plan import place
from trimtab_server.solver.settings import DEFAULT_EFFORT, Effort


def rebalance_experts(
    weight: Any,
    num_replicas: int,
    num_groups: int,
    num_nodes: int,
    num_gpus: int,
    *,
    effort: Effort = DEFAULT_EFFORT,
    backend: BackendName | Backend = "auto",
    seed: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Place experts, with the signature and shapes of DeepSeek's EPLB.

    Hierarchical where `num_nodes` divides `num_groups`, else global, as there.

    Args:
        weight: [L, E], load of each logical expert; finite, >= 0.
        num_replicas: R, slots of a layer; a multiple of `num_gpus`, >= E.
        num_groups: router groups of consecutive experts.
        num_nodes: N.
        num_gpus: G; a multiple of `num_nodes`.
        effort: "fast" or "balanced".
        backend: see `backend_for`.
        seed: of the restarts.

    Returns:
        phy2log: int64 [L, R], the expert in each slot.
        log2phy: int64 [L, E, X], the slots of each expert, ascending, padded with
            -1; X is the most replicas that any expert has.
        logcnt: int64 [L, E], replicas of each expert.

    Raises:
        InvalidArgumentError: an argument breaks a rule above.
    """
    weight_LE = as_amounts(weight, "weight")
    topology = _topology(num_replicas, num_groups, num_nodes, num_gpus)
    phy2log_LR = place(weight_LE, topology, effort=effort, seed=seed, backend=backend).phy2log
    return phy2log_LR, *slot_maps(phy2log_LR, weight_LE.shape[1])


def rebalance_phy2log(
    weight: Any,
    num_replicas: int,
    num_groups: int,
    num_nodes: int,
    num_ranks: int,
    old_global_expert_indices: Any = None,
    *,
    effort: Effort = DEFAULT_EFFORT,
    backend: BackendName | Backend = "auto",
    seed: int = 0,
) -> Tensor:
    """Place experts, with the signature of an engine's load-balancing policy.

    As `rebalance_experts`, but it answers `phy2log` alone, aligned with
    `old_global_expert_indices` [L, R], the `phy2log` in force, if that is given.
    """
    return place(
        as_amounts(weight, "weight"),
        _topology(num_replicas, num_groups, num_nodes, num_ranks),
        current=old_global_expert_indices,
        effort=effort,
        seed=seed,
        backend=backend,
    ).phy2log


def _topology(num_replicas: int, num_groups: int, num_nodes: int, num_gpus: int) -> Topology:
    """Where the nodes do not divide the groups, the field places globally."""
    require_integers(num_groups=num_groups, num_nodes=num_nodes)
    if num_nodes >= 1 and num_groups % num_nodes:
        return Topology(num_replicas, num_gpus)
    return Topology(num_replicas, num_gpus, num_nodes, num_groups)


def slot_maps(phy2log_LR: Tensor, num_experts: int) -> tuple[Tensor, Tensor]:
    """`log2phy` [L, E, X], padded with -1, and `logcnt` [L, E] of a placement, int64."""
    layers, slots = phy2log_LR.shape
    logcnt_LE = replica_counts(phy2log_LR, num_experts)
    order_LR = torch.argsort(phy2log_LR, dim=1, stable=True)
    expert_LR = phy2log_LR.gather(1, order_LR)
    first_LE = logcnt_LE.cumsum(1) - logcnt_LE
    rank_LR = torch.arange(slots, device=phy2log_LR.device) - first_LE.gather(1, expert_LR)
    width = int(logcnt_LE.max())
    log2phy_LE = phy2log_LR.new_full((layers, num_experts * width), -1)
    log2phy_LE.scatter_(1, expert_LR * width + rank_LR, order_LR)
    return log2phy_LE.unflatten(1, (num_experts, width)), logcnt_LE
