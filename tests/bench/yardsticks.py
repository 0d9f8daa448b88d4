"""A plain compiled planner: greedy replication and greedy packing.

It represents the compiled greedy planners of the field, and shows what refinement gains and
costs. It ignores groups and nodes, and lets a GPU hold two replicas of an expert. Each layer
is one pass, O((E + R) log E + R log G); threads share the layers. Legend as in
`trimtab_server.solver`.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trimtab_server.domain.topology import Topology

_THREADS = os.cpu_count() or 1
_compiled = numba.njit(nogil=True, cache=True, boundscheck=False)

Array = npt.NDArray[Any]


def plan_greedily(load_LE: Tensor, topology: Topology) -> Tensor:
    """phy2log int64 [L, R] for a load float64 [L, E] on the CPU."""
    load = load_LE.contiguous().numpy()
    phy2log = np.empty((len(load), topology.num_replicas), np.int64)
    parts = min(_THREADS, len(load))
    edges = [len(load) * part // parts for part in range(parts + 1)]
    first, *rest = (
        (load[low:high], topology.num_gpus, phy2log[low:high]) for low, high in pairwise(edges)
    )
    # The calling thread takes the first part, so that one layer needs no other thread.
    others = [_pool().submit(_plan_layers, *part) for part in rest]
    _plan_layers(*first)
    for other in others:
        other.result()
    return torch.from_numpy(phy2log)


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, _THREADS - 1), "yardstick")


@_compiled
def _plan_layers(load_LE: Array, num_gpus: int, phy2log_LR: Array) -> None:
    layers, experts = load_LE.shape
    slots = phy2log_LR.shape[1] // num_gpus
    count_E = np.empty(experts, np.int64)
    key_E, expert_E = np.empty(experts), np.empty(experts, np.int64)
    filled_G = np.empty(num_gpus, np.int64)
    key_G, gpu_G = np.empty(num_gpus), np.empty(num_gpus, np.int64)
    for layer in range(layers):
        load_E, phy2log_R = load_LE[layer], phy2log_LR[layer]
        _replicate(load_E, phy2log_R.size, count_E, key_E, expert_E)
        key_E[:] = -load_E / count_E
        key_G[:], filled_G[:] = 0, 0
        for gpu in range(num_gpus):
            gpu_G[gpu] = gpu
        open_gpus = num_gpus
        for expert in np.argsort(key_E):
            share = load_E[expert] / count_E[expert]
            for _ in range(count_E[expert]):
                gpu = gpu_G[0]
                phy2log_R[gpu * slots + filled_G[gpu]] = expert
                filled_G[gpu] += 1
                if filled_G[gpu] == slots:
                    open_gpus -= 1
                    key_G[0], gpu_G[0] = key_G[open_gpus], gpu_G[open_gpus]
                else:
                    key_G[0] += share
                _sift_down(key_G, gpu_G, 0, open_gpus)


@_compiled
def _replicate(
    load_E: Array, num_replicas: int, count_E: Array, key_E: Array, expert_E: Array
) -> None:
    """Counts of replicas; each further slot goes to the highest load per replica."""
    experts = load_E.size
    for i in range(experts):
        expert_E[i], key_E[i], count_E[i] = i, -load_E[i], 1
    for root in range(experts // 2 - 1, -1, -1):
        _sift_down(key_E, expert_E, root, experts)
    for _ in range(num_replicas - experts):
        expert = expert_E[0]
        count_E[expert] += 1
        key_E[0] = -load_E[expert] / count_E[expert]
        _sift_down(key_E, expert_E, 0, experts)


@_compiled
def _sift_down(key: Array, item: Array, root: int, size: int) -> None:
    """Restore a min-heap by key below a root that may be out of place."""
    if root >= size:
        return
    top_key, top_item = key[root], item[root]
    hole, child = root, 2 * root + 1
    while child < size:
        # An addition, since a branch would be mispredicted every other time.
        child += child + 1 < size and key[child + 1] < key[child]
        if key[child] >= top_key:
            break
        key[hole], item[hole] = key[child], item[child]
        hole, child = child, 2 * child + 1
    key[hole], item[hole] = top_key, top_item
