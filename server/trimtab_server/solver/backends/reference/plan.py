"""Full plans: groups to nodes, then the experts of each node to its GPUs."""

from __future__ import annotations

import torch
from torch import Tensor

from trimtab_server.domain.topology import Topology
from trimtab_server.solver.backends.backend import Solved, replica_cap
from trimtab_server.solver.backends.reference.packing import pack
from trimtab_server.solver.backends.reference.quantise import quantise
from trimtab_server.solver.backends.reference.replication import replicate
from trimtab_server.solver.pairing import best_pairing, pairings
from trimtab_server.solver.settings import Settings


def plan(load_LE: Tensor, topology: Topology, settings: Settings) -> Solved:
    """Plan from scratch, each node by itself; a global plan treats all GPUs as one node.

    Args:
        load_LE: float64 [L, E], finite, >= 0.
        topology: checked against E.
        settings: of the packings.
    """
    nodes = topology.num_parts
    replicas, gpus = topology.num_replicas // nodes, topology.num_gpus // nodes
    if nodes == 1:
        return _plan_rows(load_LE, replicas, gpus, settings)
    expert_LNe, iterations, swaps = _experts_of_nodes(load_LE, topology, settings)
    expert_Xe = expert_LNe.flatten(0, 1)
    local_load_Xe = load_LE.gather(1, expert_LNe.flatten(1)).view_as(expert_Xe)
    local = _plan_rows(local_load_Xe, replicas, gpus, settings)
    phy2log_LR = expert_Xe.gather(1, local.phy2log_LR).view(len(load_LE), -1)
    return Solved(phy2log_LR, iterations + local.iterations, swaps + local.swaps)


def _plan_rows(load_XE: Tensor, num_replicas: int, num_gpus: int, settings: Settings) -> Solved:
    """Replicate the experts of each row, and pack the replicas onto GPUs."""
    limit = replica_cap(num_replicas, load_XE.shape[1], num_gpus)
    expert_XR, _, logcnt_XE = replicate(load_XE, num_replicas, limit)
    share_XR = (load_XE / logcnt_XE).gather(1, expert_XR)
    packing = pack(share_XR, num_gpus, expert_XR, settings)
    slot_XR = packing.pack_index * (num_replicas // num_gpus) + packing.rank_in_pack
    phy2log_XR = torch.zeros_like(expert_XR).scatter_(1, slot_XR, expert_XR)
    return Solved(phy2log_XR, packing.iterations, packing.swaps)


def _experts_of_nodes(
    load_LE: Tensor, topology: Topology, settings: Settings
) -> tuple[Tensor, int, int]:
    """The experts of each node, int64 [L, N, E / N]: whole groups, evenly loaded.

    If there are too many pairings of groups with nodes to try, groups are packed; the last two
    values are the iterations and swaps of that packing.
    """
    nodes, groups = topology.num_parts, topology.num_groups
    # Integers, whose sum does not depend on the order of addition.
    group_load_LB = quantise(load_LE).unflatten(1, (groups, -1)).sum(-1)
    expert_BE = torch.arange(load_LE.shape[1], device=load_LE.device).view(groups, -1)
    iterations = swaps = 0
    pairing_QB = pairings(groups, nodes)
    if pairing_QB is not None:
        group_LB = best_pairing(group_load_LB, pairing_QB.to(load_LE.device), nodes)
    else:
        packing = pack(group_load_LB.double(), nodes, None, settings)
        order_LB = packing.pack_index * (groups // nodes) + packing.rank_in_pack
        group_LB = torch.argsort(order_LB, dim=1)
        iterations, swaps = packing.iterations, packing.swaps
    expert_LE = expert_BE[group_LB].flatten(1)
    return expert_LE.unflatten(1, (nodes, -1)), iterations, swaps
