"""Renames GPUs and slots so that the fewest experts move, like the reference's `align`."""

from __future__ import annotations

import numpy as np

from trimtab_server.solver.assignment import assign
from trimtab_server.solver.backends.cpu.arrays import Bools, Floats, Int64s
from trimtab_server.solver.backends.cpu.compiled import compiled, entry
from trimtab_server.solver.backends.cpu.moves import is_repeat, list_holders


def align(
    new_LR: Int64s, current_LR: Int64s, num_experts: int, num_gpus: int, num_nodes: int
) -> Int64s:
    """`new` with its GPUs and slots renamed to differ least from `current`, int64 [L, R]."""
    # One layer at a time, since the overlaps of all layers of 512 GPUs would take 128 MB.
    overlap_GG = np.empty((num_gpus, num_gpus))
    source_LG = np.empty((len(new_LR), num_gpus), np.int64)
    gpu_G = np.arange(num_gpus)
    for new_R, current_R, source_G in zip(new_LR, current_LR, source_LG, strict=True):
        _count_shared(new_R, current_R, num_experts, overlap_GG)
        source_G[assign(overlap_GG, num_nodes)] = gpu_G
    aligned_LR = np.empty_like(new_LR)
    _rename(new_LR, current_LR, source_LG, aligned_LR)
    return aligned_LR


@entry
def _count_shared(new_R: Int64s, current_R: Int64s, num_experts: int, overlap_GG: Floats) -> None:
    """Write how many experts each new GPU (row) shares with each current one (column)."""
    slots = len(new_R) // len(overlap_GG)
    first_E, holder_R = np.empty(num_experts + 1, np.int64), np.empty(len(new_R), np.int64)
    list_holders(current_R, slots, first_E, holder_R)
    overlap_GG[:] = 0.0
    for r in range(len(new_R)):
        if is_repeat(new_R, r, slots):
            continue
        last = -1
        for h in range(first_E[new_R[r]], first_E[new_R[r] + 1]):
            if holder_R[h] != last:
                last = holder_R[h]
                overlap_GG[r // slots, last] += 1.0


@entry
def _rename(new_LR: Int64s, current_LR: Int64s, source_LG: Int64s, aligned_LR: Int64s) -> None:
    """Write `new` with GPUs taken from `source_LG`, and with experts that stay in their slots."""
    gpus = source_LG.shape[1]
    slots = new_LR.shape[1] // gpus
    kept_S = np.empty(slots, np.bool_)
    for x in range(len(new_LR)):
        for g in range(gpus):
            for s in range(slots):
                aligned_LR[x, g * slots + s] = new_LR[x, source_LG[x, g] * slots + s]
        keep_slots(aligned_LR[x], current_LR[x], kept_S)


@compiled
def keep_slots(new_R: Int64s, current_R: Int64s, kept_S: Bools) -> None:
    """Reorder each GPU's slots in place: experts that stay keep their slot."""
    slots = len(kept_S)
    for first in range(0, len(new_R), slots):
        for s in range(slots):
            kept_S[s] = False
        arrivals = 0
        for i in range(first, first + slots):
            # The k-th slot of an expert matches its k-th slot in `current`.
            stays = False
            for s in range(slots):
                if not kept_S[s] and current_R[first + s] == new_R[i]:
                    kept_S[s] = stays = True
                    break
            if not stays:
                new_R[first + arrivals] = new_R[i]
                arrivals += 1
        # The arrivals are at the front, in order, and as many as the free slots. Starting with
        # the last, each goes to its free slot, which is never before its present position.
        for s in range(slots - 1, -1, -1):
            if kept_S[s]:
                new_R[first + s] = current_R[first + s]
            else:
                arrivals -= 1
                new_R[first + s] = new_R[first + arrivals]
