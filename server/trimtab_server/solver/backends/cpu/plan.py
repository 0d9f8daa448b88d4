"""Full plans, like the reference's `plan`; in NumPy, since torch would wake its own threads."""

from __future__ import annotations

import numpy as np

from trimtab_server.domain.topology import Topology
from trimtab_server.solver.backends.backend import replica_cap
from trimtab_server.solver.backends.cpu.arrays import Floats, Int64s
from trimtab_server.solver.backends.cpu.nodes import pair_rows, pairing_ns
from trimtab_server.solver.backends.cpu.packing import pack_amounts, pack_rows
from trimtab_server.solver.backends.cpu.rows import experts_in_slots, group_loads, replica_weights
from trimtab_server.solver.backends.cpu.threads import for_parts
from trimtab_server.solver.pairing import pairings
from trimtab_server.solver.settings import Settings


def plan(load_LE: Floats, topology: Topology, settings: Settings) -> tuple[Int64s, int, int]:
    """Plan from scratch: the placement, int64 [L, R]; refinement steps; and swaps."""
    nodes = topology.num_parts
    replicas, gpus = topology.num_replicas // nodes, topology.num_gpus // nodes
    if nodes == 1:
        return _plan_rows(load_LE, replicas, gpus, settings)
    group_LB, steps, swaps = _groups_of_nodes(load_LE, topology, settings)
    layers, experts = load_LE.shape
    size = experts // topology.num_groups
    expert_LE = (group_LB[:, :, None] * size + np.arange(size)).reshape(layers, experts)
    local_load_Xe = np.take_along_axis(load_LE, expert_LE, 1).reshape(layers * nodes, -1)
    local_Xr, more_steps, more_swaps = _plan_rows(local_load_Xe, replicas, gpus, settings)
    phy2log_Xr = np.take_along_axis(expert_LE.reshape(layers * nodes, -1), local_Xr, 1)
    return phy2log_Xr.reshape(layers, -1), steps + more_steps, swaps + more_swaps


def _plan_rows(
    load_XE: Floats, replicas: int, gpus: int, settings: Settings
) -> tuple[Int64s, int, int]:
    rows, experts = load_XE.shape
    limit = replica_cap(replicas, experts, gpus)
    expert_XR, weight_XR = np.empty((2, rows, replicas), np.int32)

    def fill(first: int, end: int) -> None:
        replica_weights(load_XE, limit, first, end, weight_XR, expert_XR)

    packed = pack_rows(weight_XR, expert_XR, gpus, settings, fill)
    phy2log_XR = np.empty((rows, replicas), np.int64)
    experts_in_slots(packed.item_XR, expert_XR, phy2log_XR)
    return phy2log_XR, packed.steps, packed.swaps


def _groups_of_nodes(
    load_LE: Floats, topology: Topology, settings: Settings
) -> tuple[Int64s, int, int]:
    """The groups of the first node, then of the next, int64 [L, groups]; steps; and swaps."""
    nodes, groups = topology.num_parts, topology.num_groups
    pairing_QB = pairings(groups, nodes)
    if pairing_QB is None:
        packed = pack_amounts(group_loads(load_LE, groups), nodes, None, settings)
        return packed.item_XR.astype(np.int64), packed.steps, packed.swaps
    pairing, group_LB = pairing_QB.numpy(), np.empty((len(load_LE), groups), np.int64)
    for_parts(
        len(load_LE),
        lambda first, end: pair_rows(load_LE, pairing, nodes, first, end, group_LB),
        nanoseconds=pairing_ns(pairing),
    )
    return group_LB, 0, 0
