"""Loads of GPUs in float64, added up in the order of the reference's `fold_sum`."""

from __future__ import annotations

import numpy as np

from trimtab_server.solver.backends.cpu.arrays import Floats, Int64s
from trimtab_server.solver.backends.cpu.compiled import compiled, entry


def balance_ns(experts: int, replicas: int) -> float:
    """About how long `balance_rows` takes for a layer, in nanoseconds."""
    return 1.5 * (experts + replicas)


@entry
def balance_rows(
    phy2log_LR: Int64s,
    load_LE: Floats,
    first: int,
    end: int,
    gpu_load_LG: Floats,
    imbalance_L: Floats,
) -> None:
    """Write the load of each GPU, and the imbalance, of layers `first` to `end`."""
    gpus = gpu_load_LG.shape[1]
    share_E, scratch = np.empty(load_LE.shape[1]), np.empty(phy2log_LR.shape[1])
    for x in range(first, end):
        gpu_loads(phy2log_LR[x], load_LE[x], share_E, scratch, gpu_load_LG[x])
        heaviest = 0.0
        for g in range(gpus):
            heaviest = max(heaviest, gpu_load_LG[x, g])
            scratch[g] = gpu_load_LG[x, g]
        mean = fold_sum(scratch, 0, gpus) / gpus
        imbalance_L[x] = max(heaviest / mean, 1.0) if mean > 0 else 1.0


@compiled
def gpu_loads(
    phy2log_R: Int64s, load_E: Floats, share_E: Floats, scratch_R: Floats, out_G: Floats
) -> None:
    """Write the load of each GPU of a layer.

    Args:
        phy2log_R: int64 [R].
        load_E: float64 [E].
        share_E: float64 [E], scratch.
        scratch_R: float64 [R], scratch.
        out_G: float64 [G], written.
    """
    slots = len(phy2log_R) // len(out_G)
    for e in range(len(load_E)):
        share_E[e] = 0.0
    for r in range(len(phy2log_R)):
        share_E[phy2log_R[r]] += 1.0
    for e in range(len(load_E)):
        share_E[e] = load_E[e] / share_E[e]
    for r in range(len(phy2log_R)):
        scratch_R[r] = share_E[phy2log_R[r]]
    for g in range(len(out_G)):
        out_G[g] = fold_sum(scratch_R, g * slots, slots)


@compiled
def fold_sum(value: Floats, first: int, width: int) -> float:
    """Sum of `width` numbers from index `first`; they are overwritten."""
    while width > 1:
        half = (width + 1) // 2
        for i in range(width - half):
            value[first + i] += value[first + half + i]
        width = half
    return value[first]
