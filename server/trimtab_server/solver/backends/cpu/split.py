"""Splits experts over their replicas as evenly as it can; see `solver.split`."""

from __future__ import annotations

import numpy as np

from trimtab_server.solver.backends.cpu.arrays import Floats, Int64s
from trimtab_server.solver.backends.cpu.compiled import compiled, entry

_SWEEPS = 300
_TOLERANCE = 1e-6
"""Of the mean load of a GPU. Most layers come that close in 10 to 30 sweeps; long chains of GPUs,
each of which shares one expert with the next, take hundreds."""


@entry
def split_layers(phy2log_LR: Int64s, load_LE: Floats, gpu_load_LG: Floats) -> None:
    """Write the load of each GPU with the best split, of layers of placements and loads."""
    slots, experts, gpus = phy2log_LR.shape[1], load_LE.shape[1], gpu_load_LG.shape[1]
    first_E, end_E = np.empty(experts, np.int64), np.empty(experts, np.int64)
    # For each expert, from `first` to `end`: the GPUs that hold it, and what each takes of it.
    gpu_P, share_P = np.empty(slots, np.int64), np.empty(slots)
    for layer in range(len(load_LE)):
        load_E, load_G = load_LE[layer], gpu_load_LG[layer]
        _find_places(phy2log_LR[layer], slots // gpus, first_E, end_E, gpu_P)
        load_G[:] = 0.0
        for expert in range(experts):
            first, end = first_E[expert], end_E[expert]
            for place in range(first, end):
                share_P[place] = load_E[expert] / (end - first)
                load_G[gpu_P[place]] += share_P[place]
        allowed = _TOLERANCE * load_E.sum() / gpus
        for sweep in range(_SWEEPS):
            largest = 0.0
            for turn in range(experts):
                # There and back again, so that what is left goes both ways along a chain.
                expert = turn if sweep % 2 == 0 else experts - 1 - turn
                first, end = first_E[expert], end_E[expert]
                if end - first > 1 and load_E[expert] > 0:
                    change = _fill(load_E[expert], gpu_P[first:end], share_P[first:end], load_G)
                    largest = max(largest, change)
            if largest <= allowed:
                break


@compiled
def _find_places(
    phy2log_R: Int64s, per_gpu: int, first_E: Int64s, end_E: Int64s, gpu_P: Int64s
) -> None:
    """List the GPUs of each expert, ascending, each once."""
    end_E[:] = 0
    for expert in phy2log_R:
        end_E[expert] += 1
    total = 0
    for expert in range(len(first_E)):
        first_E[expert] = total
        total += end_E[expert]
        end_E[expert] = first_E[expert]
    for slot in range(len(phy2log_R)):
        expert, gpu = phy2log_R[slot], slot // per_gpu
        end = end_E[expert]
        if end == first_E[expert] or gpu_P[end - 1] != gpu:
            gpu_P[end] = gpu
            end_E[expert] = end + 1


@compiled
def _fill(load: float, gpu_N: Int64s, share_N: Floats, load_G: Floats) -> float:
    """Divide an expert's load so that its GPUs become as even as it can make them.

    Sorts the GPUs by what they have without it. Returns the largest change of a share.
    """
    replicas = len(gpu_N)
    for place in range(replicas):
        load_G[gpu_N[place]] -= share_N[place]
    for place in range(1, replicas):
        gpu, share, at = gpu_N[place], share_N[place], place
        while at > 0 and load_G[gpu_N[at - 1]] > load_G[gpu]:
            gpu_N[at], share_N[at] = gpu_N[at - 1], share_N[at - 1]
            at -= 1
        gpu_N[at], share_N[at] = gpu, share
    # The lightest GPUs rise to one level, which is below the next one.
    rising, below = 1, load_G[gpu_N[0]]
    while rising < replicas and (load + below) / rising > load_G[gpu_N[rising]]:
        below += load_G[gpu_N[rising]]
        rising += 1
    level, largest = (load + below) / rising, 0.0
    for place in range(replicas):
        share = level - load_G[gpu_N[place]] if place < rising else 0.0
        largest = max(largest, abs(share - share_N[place]))
        share_N[place] = share
        load_G[gpu_N[place]] += share
    return largest
