"""The moves between two placements: see `moves_between`."""

from __future__ import annotations

import numpy as np

from trimtab_server.solver.backends.cpu.arrays import Int64s
from trimtab_server.solver.backends.cpu.compiled import compiled, entry

_NONE = -1


@entry
def moves_of_rows(
    current_LR: Int64s, new_LR: Int64s, num_experts: int, num_gpus: int
) -> tuple[Int64s, Int64s]:
    """Layer, slot and expert of each move, [M, 3], and the GPUs that held the expert, [M, X]."""
    layers, replicas = new_LR.shape
    slots = replicas // num_gpus
    move_M3 = np.empty((layers * replicas, 3), np.int64)
    first_E, holder_R = np.empty(num_experts + 1, np.int64), np.empty(replicas, np.int64)
    count = width = 0
    for x in range(layers):
        if _is_same(current_LR[x], new_LR[x]):
            continue
        list_holders(current_LR[x], slots, first_E, holder_R)
        for r in range(replicas):
            expert, gpu = new_LR[x, r], r // slots
            if _holds(first_E, holder_R, expert, gpu) or is_repeat(new_LR[x], r, slots):
                continue
            move_M3[count] = (x, r, expert)
            count += 1
            width = max(width, _count_holders(first_E, holder_R, expert))
    source_MX = _sources(current_LR, move_M3[:count], slots, num_experts, width)
    return move_M3[:count].copy(), source_MX


@compiled
def _is_same(a_R: Int64s, b_R: Int64s) -> bool:
    differing = 0
    for r in range(len(a_R)):
        differing += a_R[r] != b_R[r]
    return differing == 0


@entry
def _sources(
    current_LR: Int64s, move_M3: Int64s, slots: int, num_experts: int, width: int
) -> Int64s:
    """The GPUs that held each move's expert, ascending, padded with -1 to `width`."""
    replicas = current_LR.shape[1]
    first_E, holder_R = np.empty(num_experts + 1, np.int64), np.empty(replicas, np.int64)
    source_MX = np.full((len(move_M3), width), _NONE)
    layer = _NONE
    for m in range(len(move_M3)):
        expert = move_M3[m, 2]
        if move_M3[m, 0] != layer:
            layer = move_M3[m, 0]
            list_holders(current_LR[layer], slots, first_E, holder_R)
        count = 0
        for h in range(first_E[expert], first_E[expert + 1]):
            if count == 0 or source_MX[m, count - 1] != holder_R[h]:
                source_MX[m, count] = holder_R[h]
                count += 1
    return source_MX


@compiled
def _count_holders(first_E: Int64s, holder_R: Int64s, expert: int) -> int:
    """How many GPUs hold the expert."""
    count = 0
    for h in range(first_E[expert], first_E[expert + 1]):
        count += h == first_E[expert] or holder_R[h] != holder_R[h - 1]
    return count


@compiled
def list_holders(phy2log_R: Int64s, slots: int, first_E: Int64s, holder_R: Int64s) -> None:
    """Write the GPUs of each expert, ascending, to `holder_R[first_E[e] : first_E[e + 1]]`."""
    for e in range(len(first_E)):
        first_E[e] = 0
    for r in range(len(phy2log_R)):
        first_E[phy2log_R[r] + 1] += 1
    for e in range(1, len(first_E)):
        first_E[e] += first_E[e - 1]
    for r in range(len(phy2log_R)):
        holder_R[first_E[phy2log_R[r]]] = r // slots
        first_E[phy2log_R[r]] += 1
    for e in range(len(first_E) - 1, 0, -1):
        first_E[e] = first_E[e - 1]
    first_E[0] = 0


@compiled
def _holds(first_E: Int64s, holder_R: Int64s, expert: int, gpu: int) -> bool:
    found = 0
    for h in range(first_E[expert], first_E[expert + 1]):
        found += holder_R[h] == gpu
    return found > 0


@compiled
def is_repeat(phy2log_R: Int64s, slot: int, slots: int) -> bool:
    """Whether an earlier slot of the same GPU has the same expert."""
    found = 0
    for r in range(slot // slots * slots, slot):
        found += phy2log_R[r] == phy2log_R[slot]
    return found > 0
