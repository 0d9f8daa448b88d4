"""Drop-in replacements for DeepSeek's EPLB and for inference engines' load-balancing policies."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from trimtab_server.domain.arrays import (
    as_amounts,
    as_indices,
    check_phy2log,
    require_all,
    unthreaded,
)
from trimtab_server.domain.errors import require, require_integers
from trimtab_server.domain.topology import Topology
from trimtab_server.solver.backends.backend import Backend
from trimtab_server.solver.backends.cpu.threads import at_most_threads
from trimtab_server.solver.backends.select import BackendName
from trimtab_server.solver.budget import Budget
from trimtab_server.solver.plan import keeps_groups, phy2log_for
from trimtab_server.solver.settings import DEFAULT_EFFORT, Effort

DEFAULT_BUDGET = Budget(max_moves_per_layer=4, min_gain=3e-3)
"""The drop-ins see the counts of one window, with their noise, and not the server's estimates. So
they ask for more gain than `DEFAULT_MIN_GAIN`: on three replays a least gain of 1e-3 gives a live
balancedness of 0.911, 0.920, 0.884 with 3.2 moves in each layer and window, and 3e-3 gives 0.914,
0.918, 0.885 with 1.9 to 2.4."""

_OLD = "old_global_expert_indices"
_EMPTY = -1


class _How(NamedTuple):
    """How to plan; see `rebalance_experts`."""

    effort: Effort
    seed: int
    backend: BackendName | Backend


def rebalance_experts(
    weight: Any,
    num_replicas: int,
    num_groups: int,
    num_nodes: int,
    num_gpus: int,
    *,
    old_global_expert_indices: Any = None,
    budget: Budget | None = DEFAULT_BUDGET,
    effort: Effort = DEFAULT_EFFORT,
    backend: BackendName | Backend = "auto",
    seed: int = 0,
    threads: int | None = 1,
) -> tuple[Tensor, Tensor, Tensor]:
    """Place experts, with the signature and shapes of DeepSeek's EPLB.

    As in EPLB, the plan is hierarchical if `num_nodes` divides `num_groups`, else global.

    Where the placement in force is given, it is improved by a few moves, as `improve` does it.
    Layers in which a router group lies on several nodes of a hierarchical plan, and placements that
    cannot stay, since they have another number of slots or slots without an expert, are planned
    anew and aligned, so that few experts move.

    Args:
        weight: [L, E] of any real dtype, load of each logical expert; finite, >= 0.
        num_replicas: R, slots of a layer; a multiple of `num_gpus`, >= E.
        num_groups: router groups of consecutive experts; 0 is read as 1, since engines say so of
            models without groups.
        num_nodes: N.
        num_gpus: G; of a hierarchical plan, a multiple of `num_nodes`.
        old_global_expert_indices: int [L, any number of slots], the `phy2log` in force, with -1 for
            a slot without an expert. GPU g has the slots from `g * R / G` on, there as here:
            if GPUs leave, those with the highest numbers do.
        budget: of moves from the placement in force; None plans anew, and aligns.
        effort: "fast" or "balanced".
        backend: see `backend_for`.
        seed: of the restarts.
        threads: the CPU threads to use at most; None for as many as torch would use. Engines
            need their cores for other things.

    Returns:
        phy2log: int64 [L, R], the expert in each slot. All are on the CPU and contiguous.
        log2phy: int64 [L, E, X], the slots of each expert, ascending, padded with
            -1; X is the largest number of replicas of any expert.
        logcnt: int64 [L, E], replicas of each expert.

    Raises:
        InvalidArgumentError: an argument breaks a rule above.
    """
    weight_LE = as_amounts(weight, "weight")
    topology = _topology(num_replicas, num_groups, num_nodes, num_gpus)
    how = _How(effort, seed, backend)
    with at_most_threads(threads):
        phy2log_LR, planner = _placed(weight_LE, topology, old_global_expert_indices, budget, how)
        maps = phy2log_LR, *planner.slot_maps(phy2log_LR, weight_LE.shape[1])
    phy2log, log2phy, logcnt = (each.cpu().contiguous() for each in maps)
    return phy2log, log2phy, logcnt


def rebalance_phy2log(
    weight: Any,
    num_replicas: int,
    num_groups: int,
    num_nodes: int,
    num_ranks: int,
    old_global_expert_indices: Any = None,
    *,
    budget: Budget | None = DEFAULT_BUDGET,
    effort: Effort = DEFAULT_EFFORT,
    backend: BackendName | Backend = "auto",
    seed: int = 0,
    threads: int | None = 1,
) -> Tensor:
    """Place experts, with the signature of an inference engine's load-balancing policy.

    Like `rebalance_experts`, but returns `phy2log` alone.
    """
    weight_LE = as_amounts(weight, "weight")
    topology = _topology(num_replicas, num_groups, num_nodes, num_ranks)
    how = _How(effort, seed, backend)
    with at_most_threads(threads):
        phy2log_LR, _ = _placed(weight_LE, topology, old_global_expert_indices, budget, how)
    return phy2log_LR.cpu().contiguous()


def _topology(num_replicas: int, num_groups: int, num_nodes: int, num_gpus: int) -> Topology:
    """The topology; global if the nodes do not divide the groups, as in EPLB."""
    require_integers(num_groups=num_groups, num_nodes=num_nodes)
    require(num_nodes >= 1, "num_nodes", f"{num_nodes} is below 1")
    if num_groups == 0 or num_groups % num_nodes:
        return Topology(num_replicas, num_gpus)
    return Topology(num_replicas, num_gpus, num_nodes, num_groups)


def _placed(
    load_LE: Tensor, topology: Topology, old: Any, budget: Budget | None, how: _How
) -> tuple[Tensor, Backend]:
    """The new placement, and the backend that planned it."""
    known = budget is None or isinstance(budget, Budget)
    require(known, "budget", f"{budget!r} is neither a Budget nor None")
    if old is None:
        return phy2log_for(load_LE, topology, **how._asdict())
    old_LQ = _checked_old(old, load_LE)
    if old_LQ.shape[1] != topology.num_replicas or unthreaded(old_LQ).min() == _EMPTY:
        return _with_survivors(load_LE, topology, old_LQ, how)
    check_phy2log(old_LQ, _OLD, load_LE.shape[1])
    new_LR, planner = phy2log_for(load_LE, topology, current=old_LQ, budget=budget, **how._asdict())
    if budget is not None and topology.num_parts > 1:
        astray = np.flatnonzero(~unthreaded(keeps_groups(old_LQ, topology, load_LE.shape[1])))
        if len(astray):
            load, old = (torch.as_tensor(unthreaded(each)[astray]) for each in (load_LE, old_LQ))
            anew, _ = phy2log_for(load, topology, current=old, **how._asdict())
            new: Any = unthreaded(new_LR)
            new[astray] = unthreaded(anew)
    return new_LR, planner


def _checked_old(old: Any, load_LE: Tensor) -> Tensor:
    """The placement in force, with -1 in slots without an expert, on the device of the load."""
    old_LQ = as_indices(old, _OLD)
    layers, experts = load_LE.shape
    found, slots = len(old_LQ), unthreaded(old_LQ)
    require(found == layers, _OLD, f"has {found} layers, but weight has {layers}")
    known = (slots >= _EMPTY) & (slots < experts)
    require_all(known, old_LQ, _OLD, f"is neither an expert in [0, {experts}) nor {_EMPTY}")
    return old_LQ.to(load_LE.device)


def _with_survivors(
    load_LE: Tensor, topology: Topology, old_LQ: Tensor, how: _How
) -> tuple[Tensor, Backend]:
    """A full plan in which GPUs keep what they can of a placement that cannot stay."""
    new_LR, planner = phy2log_for(load_LE, topology, **how._asdict())
    # An empty slot holds an expert that no plan has, so that there is nothing to keep.
    experts = load_LE.shape[1] + 1
    kept_LR = np.full(new_LR.shape, experts - 1)
    width = min(topology.num_replicas, old_LQ.shape[1])
    old_LW = old_LQ.cpu().numpy()[:, :width]
    kept_LR[:, :width] = np.where(old_LW == _EMPTY, experts - 1, old_LW)
    survivors_LR = torch.from_numpy(kept_LR).to(new_LR.device)
    sizes = experts, topology.num_gpus, topology.num_parts
    return planner.align(new_LR, survivors_LR, *sizes), planner
