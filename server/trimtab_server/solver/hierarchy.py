"""A full plan: groups onto nodes, replicas inside each node, replicas onto its GPUs."""

from __future__ import annotations

import torch
from torch import Tensor

from trimtab_server.domain.topology import Topology
from trimtab_server.solver.packing import pack
from trimtab_server.solver.quantise import quantise
from trimtab_server.solver.replication import replicate_experts
from trimtab_server.solver.settings import Backend, Settings
from trimtab_server.solver.solved import Solved
from trimtab_server.solver.stages import Stage


def plan_fully(
    load_LE: Tensor, topology: Topology, settings: Settings, backend: Backend, stage: Stage
) -> Solved:
    """Plan from scratch. Global placement is the case of one node that has all GPUs.

    Args:
        load_LE: float64 [L, E], finite, >= 0.
        topology: checked against E.
        settings: of both packings.
        backend: where the packings run.
        stage: entered around each stage.
    """
    layers = len(load_LE)
    nodes = topology.num_parts
    expert_LNe, iterations, swaps = _experts_of_nodes(load_LE, topology, settings, backend, stage)
    local_load_Xe = load_LE.gather(1, expert_LNe.flatten(1)).view(layers * nodes, -1)
    gpus = topology.num_gpus // nodes
    with stage("replicate"):
        local_Xr, _, logcnt_Xe = replicate_experts(
            local_load_Xe, topology.num_replicas // nodes, max_replicas=gpus
        )
    share_Xr = (local_load_Xe / logcnt_Xe).gather(1, local_Xr)
    packing = pack(
        share_Xr, gpus, item_group=local_Xr, settings=settings, backend=backend, stage=stage
    )
    slot_Xr = packing.pack_index * topology.slots_per_gpu + packing.rank_in_pack
    by_slot_Xr = torch.zeros_like(local_Xr).scatter_(1, slot_Xr, local_Xr)
    phy2log_LR = expert_LNe.view(layers * nodes, -1).gather(1, by_slot_Xr).view(layers, -1)
    return Solved(phy2log_LR, iterations + packing.iterations, swaps + packing.swaps)


def _experts_of_nodes(
    load_LE: Tensor, topology: Topology, settings: Settings, backend: Backend, stage: Stage
) -> tuple[Tensor, int, int]:
    """The experts of each node, int64 [L, N, E / N]: whole groups, evenly loaded."""
    layers, experts = load_LE.shape
    nodes, groups = topology.num_parts, topology.num_groups
    expert_E = torch.arange(experts, device=load_LE.device)
    if nodes == 1:
        return expert_E.repeat(layers, 1, 1), 0, 0
    # Integers, whose sum does not depend on the order of addition.
    group_load_LB = quantise(load_LE).unflatten(1, (groups, -1)).sum(-1)
    packing = pack(group_load_LB, nodes, settings=settings, backend=backend, stage=stage)
    order_LB = packing.pack_index * (groups // nodes) + packing.rank_in_pack
    group_LB = torch.argsort(order_LB, dim=1)
    expert_LE = expert_E.view(groups, -1)[group_LB].flatten(1)
    return expert_LE.unflatten(1, (nodes, -1)), packing.iterations, packing.swaps
