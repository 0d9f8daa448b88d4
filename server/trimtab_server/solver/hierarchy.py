"""A full plan: groups onto nodes, then each node's experts onto its GPUs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from trimtab_server.domain.arrays import replica_counts, unthreaded
from trimtab_server.domain.topology import Topology
from trimtab_server.solver.backends.backend import Packing, Solved
from trimtab_server.solver.backends.reference.quantise import quantise
from trimtab_server.solver.pairing import best_pairing, pairings
from trimtab_server.solver.settings import Settings

PlanRows = Callable[[Tensor, int, int, Settings], Solved]
"""(load [X, E], R, G, settings): replicates and packs each row for itself."""

PackRows = Callable[[Tensor, int, None, Settings], Packing]
"""(weight [X, n], P, no groups, settings): packs each row."""


def plan_in_parts(
    load_LE: Tensor,
    topology: Topology,
    settings: Settings,
    plan_rows: PlanRows,
    pack: PackRows,
) -> Solved:
    """Plan from scratch, each node for itself. Global placement is the case of one.

    Args:
        load_LE: float64 [L, E], finite, >= 0.
        topology: checked against E.
        settings: of the packings.
        plan_rows: plans the experts of one part, numbered from 0.
        pack: packs groups onto nodes where there are too many pairings to try.
    """
    nodes = topology.num_parts
    replicas, gpus = topology.num_replicas // nodes, topology.num_gpus // nodes
    if nodes == 1:
        return plan_rows(load_LE, replicas, gpus, settings)
    expert_LNe, iterations, swaps = _experts_of_nodes(load_LE, topology, settings, pack)
    expert_Xe = expert_LNe.flatten(0, 1)
    local_load_Xe = load_LE.gather(1, expert_LNe.flatten(1)).view_as(expert_Xe)
    local = plan_rows(local_load_Xe, replicas, gpus, settings)
    phy2log_LR = expert_Xe.gather(1, local.phy2log_LR).view(len(load_LE), -1)
    return Solved(phy2log_LR, iterations + local.iterations, swaps + local.swaps)


def _experts_of_nodes(
    load_LE: Tensor, topology: Topology, settings: Settings, pack: PackRows
) -> tuple[Tensor, int, int]:
    """The experts of each node, int64 [L, N, E / N]: whole groups, evenly loaded."""
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


def keeps_groups(phy2log_LR: Tensor, topology: Topology, num_experts: int) -> Tensor:
    """The layers whose router groups lie on one node each, bool [L]; for several nodes."""
    groups, nodes = topology.num_groups, topology.num_parts
    numbers_LR = unthreaded(phy2log_LR)
    slots = phy2log_LR.shape[1]
    slot_R = unthreaded(torch.arange(slots, device=phy2log_LR.device))
    cell_LR = numbers_LR // (num_experts // groups) * nodes + slot_R // (slots // nodes)
    held_LC = unthreaded(replica_counts(torch.as_tensor(cell_LR), groups * nodes)) > 0
    # Each group is on some node: on one each, if nodes and groups meet no more often.
    kept_L: Tensor = torch.as_tensor(held_LC.sum(1) == groups)
    return kept_L
