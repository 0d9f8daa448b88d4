"""Loops over rows around the compiled functions that work on one row."""

from __future__ import annotations

import numpy as np

from trimtab_server.solver.backends.cpu.arrays import Floats, Int32s, Int64s
from trimtab_server.solver.backends.cpu.compiled import entry
from trimtab_server.solver.backends.cpu.quantise import quantise
from trimtab_server.solver.backends.cpu.replicate import num_blocks, replicate


def replicate_ns(experts: int, replicas: int) -> float:
    """About how long `replicate_rows` takes for a row, in nanoseconds."""
    return 2.0 * (experts + replicas) + 40.0 * (replicas - experts)


@entry
def replicate_rows(
    load_XE: Floats,
    limit: int,
    first: int,
    end: int,
    expert_XR: Int64s,
    rank_XR: Int64s,
    logcnt_XE: Int64s,
) -> None:
    """`replicate` for rows `first` to `end`."""
    experts = load_XE.shape[1]
    share_E, open_E, top_B = np.empty(experts), np.empty(experts), np.empty(num_blocks(experts))
    for x in range(first, end):
        outputs = expert_XR[x], rank_XR[x], logcnt_XE[x]
        replicate(load_XE[x], limit, *outputs, share_E, open_E, top_B)


@entry
def replica_weights(
    load_XE: Floats, limit: int, first: int, end: int, weight_XR: Int32s, expert_XR: Int32s
) -> None:
    """Write the replicas of each row as items to pack: the weight, and the expert as the group."""
    experts, replicas = load_XE.shape[1], expert_XR.shape[1]
    expert_R, rank_R = np.empty(replicas, np.int64), np.empty(replicas, np.int64)
    logcnt_E, share_E = np.empty(experts, np.int64), np.empty(experts)
    open_E, top_B = np.empty(experts), np.empty(num_blocks(experts))
    weight_E = np.empty(experts, np.int32)
    for x in range(first, end):
        replicate(load_XE[x], limit, expert_R, rank_R, logcnt_E, share_E, open_E, top_B)
        quantise(share_E, replicas, weight_E)
        for r in range(replicas):
            expert_XR[x, r] = expert_R[r]
            weight_XR[x, r] = weight_E[expert_R[r]]


@entry
def quantise_rows(amount_XI: Floats, first: int, end: int, weight_XI: Int32s) -> None:
    """`quantise` for rows `first` to `end`."""
    for x in range(first, end):
        quantise(amount_XI[x], amount_XI.shape[1], weight_XI[x])


@entry
def group_loads(load_LE: Floats, groups: int) -> Floats:
    """Integer loads of router groups, float64 [L, groups], summed like the reference's."""
    layers, experts = load_LE.shape
    load_LB, weight_E = np.zeros((layers, groups)), np.empty(experts, np.int32)
    for x in range(layers):
        quantise(load_LE[x], experts, weight_E)
        for e in range(experts):
            load_LB[x, e * groups // experts] += weight_E[e]
    return load_LB


@entry
def places(item_XR: Int32s, num_packs: int, pack_XI: Int64s, rank_XI: Int64s) -> None:
    """Write the pack and the rank of each item, given the item in each place."""
    slots = item_XR.shape[1] // num_packs
    for x in range(len(item_XR)):
        for r in range(item_XR.shape[1]):
            pack_XI[x, item_XR[x, r]] = r // slots
            rank_XI[x, item_XR[x, r]] = r % slots


@entry
def experts_in_slots(item_XR: Int32s, expert_XR: Int32s, phy2log_XR: Int64s) -> None:
    """Write the expert of each place, given the item in it."""
    for x in range(len(item_XR)):
        for r in range(item_XR.shape[1]):
            phy2log_XR[x, r] = expert_XR[x, item_XR[x, r]]
