"""Drop-in replacements for DeepSeek's EPLB and for inference engines' load-balancing policies."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from trimtab_server.domain.arrays import as_amounts
from trimtab_server.domain.errors import require_integers
from trimtab_server.domain.topology import Topology
from trimtab_server.solver.backends.backend import Backend
from trimtab_server.solver.backends.select import BackendName
from trimtab_server.solver.plan import phy2log_for
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

    As in EPLB, the plan is hierarchical if `num_nodes` divides `num_groups`, else global.

    Args:
        weight: [L, E], load of each logical expert; finite, >= 0.
        num_replicas: R, slots of a layer; a multiple of `num_gpus`, >= E.
        num_groups: router groups of consecutive experts; 0 is read as 1, since engines say so of
            models without groups.
        num_nodes: N.
        num_gpus: G; a multiple of `num_nodes`.
        effort: "fast" or "balanced".
        backend: see `backend_for`.
        seed: of the restarts.

    Returns:
        phy2log: int64 [L, R], the expert in each slot.
        log2phy: int64 [L, E, X], the slots of each expert, ascending, padded with
            -1; X is the largest number of replicas of any expert.
        logcnt: int64 [L, E], replicas of each expert.

    Raises:
        InvalidArgumentError: an argument breaks a rule above.
    """
    weight_LE = as_amounts(weight, "weight")
    topology = _topology(num_replicas, num_groups, num_nodes, num_gpus)
    phy2log_LR, planner = phy2log_for(
        weight_LE, topology, effort=effort, seed=seed, backend=backend
    )
    return phy2log_LR, *planner.slot_maps(phy2log_LR, weight_LE.shape[1])


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
    """Place experts, with the signature of an inference engine's load-balancing policy.

    Like `rebalance_experts`, but returns `phy2log` alone, aligned with
    `old_global_expert_indices` [L, R], the `phy2log` in force, if that is given.
    """
    phy2log_LR, _ = phy2log_for(
        as_amounts(weight, "weight"),
        _topology(num_replicas, num_groups, num_nodes, num_ranks),
        current=old_global_expert_indices,
        effort=effort,
        seed=seed,
        backend=backend,
    )
    return phy2log_LR


def _topology(num_replicas: int, num_groups: int, num_nodes: int, num_gpus: int) -> Topology:
    """The topology; global if the nodes do not divide the groups, as in EPLB."""
    require_integers(num_groups=num_groups, num_nodes=num_nodes)
    if num_groups == 0 or (num_nodes >= 1 and num_groups % num_nodes):
        return Topology(num_replicas, num_gpus)
    return Topology(num_replicas, num_gpus, num_nodes, num_groups)
