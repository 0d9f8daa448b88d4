"""Assigns groups to nodes: the best pairing, and the bound that follows from it. See `pairing`."""

from __future__ import annotations

import numpy as np

from trimtab_server.solver.backends.cpu.arrays import Floats, Int64s
from trimtab_server.solver.backends.cpu.balance import fold_sum
from trimtab_server.solver.backends.cpu.compiled import compiled, entry
from trimtab_server.solver.backends.cpu.quantise import quantise
from trimtab_server.solver.backends.cpu.replicate import num_blocks, replicate
from trimtab_server.solver.backends.reference.bound import ROUNDED_DOWN


def pairing_ns(pairing_QB: Int64s) -> float:
    """About how long `pair_rows` takes for a layer, and `bound_rows` without replication."""
    return 3.0 * pairing_QB.size


@entry
def pair_rows(
    load_LE: Floats, pairing_QB: Int64s, nodes: int, first: int, end: int, group_LB: Int64s
) -> None:
    """Write the best pairing of layers `first` to `end`: see `best_pairing`."""
    experts, groups = load_LE.shape[1], pairing_QB.shape[1]
    weight_E, load_B = np.empty(experts, np.int32), np.empty(groups, np.int64)
    for x in range(first, end):
        quantise(load_LE[x], experts, weight_E)
        for b in range(groups):
            load_B[b] = 0
        for e in range(experts):
            load_B[e * groups // experts] += weight_E[e]
        best = 0
        min_peak = min_squares = np.int64(1) << 62
        for q in range(len(pairing_QB)):
            peak = squares = np.int64(0)
            for n in range(nodes):
                load = np.int64(0)
                for i in range(n * groups // nodes, (n + 1) * groups // nodes):
                    load += load_B[pairing_QB[q, i]]
                peak = max(peak, load)
                squares += load * load
            if peak < min_peak or (peak == min_peak and squares < min_squares):
                best, min_peak, min_squares = q, peak, squares
        group_LB[x] = pairing_QB[best]


@entry
def bound_rows(
    load_LE: Floats,
    pairing_QB: Int64s,
    nodes: int,
    gpus: int,
    replicas: int,
    limit: int,
    first: int,
    end: int,
    bound_L: Floats,
) -> None:
    """Write the bound of layers `first` to `end`: see the reference's `lowest_imbalance`."""
    experts, groups = load_LE.shape[1], pairing_QB.shape[1]
    expert_R, rank_R = np.empty(replicas, np.int64), np.empty(replicas, np.int64)
    logcnt_E, share_E = np.empty(experts, np.int64), np.empty(experts)
    open_E, top_B = np.empty(experts), np.empty(num_blocks(experts))
    load_B, scratch_E = np.empty(groups), np.empty(experts)
    for x in range(first, end):
        replicate(load_LE[x], limit, expert_R, rank_R, logcnt_E, share_E, open_E, top_B)
        peak = 0.0
        for e in range(experts):
            peak = max(peak, share_E[e])
            scratch_E[e] = load_LE[x, e]
        if nodes > 1:
            size = experts // groups
            for b in range(groups):
                load_B[b] = fold_sum(scratch_E, b * size, size)
            peak = max(peak, _lightest_peak(load_B, pairing_QB, nodes, scratch_E) / (gpus // nodes))
            for e in range(experts):
                scratch_E[e] = load_LE[x, e]
        mean = fold_sum(scratch_E, 0, experts) / gpus
        bound_L[x] = max(peak / mean * ROUNDED_DOWN, 1.0) if mean > 0 else 1.0


@compiled
def _lightest_peak(load_B: Floats, pairing_QB: Int64s, nodes: int, scratch_E: Floats) -> float:
    """The lowest possible load of the heaviest node."""
    size = len(load_B) // nodes
    lightest = np.inf
    for q in range(len(pairing_QB)):
        peak = 0.0
        for n in range(nodes):
            for i in range(size):
                scratch_E[i] = load_B[pairing_QB[q, n * size + i]]
            peak = max(peak, fold_sum(scratch_E, 0, size))
        lightest = min(lightest, peak)
    return lightest
