"""A layer while `improve` works on it: what its steps gain and cost is computed from this.

All sums are of integers (see `quantise`), so gains are exact.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trimtab_server.solver.backends.cpu.compiled import compiled, entry

Int64s = npt.NDArray[np.int64]
Int32s = npt.NDArray[np.int32]
Bools = npt.NDArray[np.bool_]

NO_SLOT = -1


class Rules(NamedTuple):
    """What steps may do and cost, for a whole call.

    Attributes:
        top_k: heaviest, and lightest, GPUs whose slots are tried for swaps.
        num_nodes: N.
        num_groups: router groups; 1 for none.
        cross_node_cost: what a move from another node counts.
        min_gain: least gain for each net move, where the mean GPU load is 1.
    """

    top_k: int
    num_nodes: int
    num_groups: int
    cross_node_cost: float
    min_gain: float


class Layer(NamedTuple):
    """A layer as it stands, and as it stood. E experts, R slots, S of each of G GPUs.

    Attributes:
        start_R: int64, the expert of each slot at the start.
        expert_R: int64, the expert of each slot.
        gpu_R: int64, the GPU of each slot.
        weight_E: int64, an expert's whole load.
        logcnt_E: int64, slots of each expert.
        now_E: int64, load of each of an expert's replicas.
        more_E: int32, the same with one replica more.
        fall_E: int64, by how much it falls then.
        rise_E: int64, by how much it rises with one fewer.
        load_G: int64, load of each GPU.
        copies_EG: int32, slots of each expert on each GPU.
        pull_E: int64, sum of the loads of the GPUs of an expert's slots.
        square_E: int64, sum over GPUs of an expert's slots there, squared.
        head_E: int64, the lowest slot of each expert.
        next_R: int64, the next slot of the same expert, or NO_SLOT.
        was_EG: bool, whether an expert lay on a GPU at the start.
        near_EN: bool, whether it lay on a node.
        open_BN: bool, whether a router group may lie on a node.
        touched_G: bool, whether a GPU is not as it was.
    """

    start_R: Int64s
    expert_R: Int64s
    gpu_R: Int64s
    weight_E: Int64s
    logcnt_E: Int64s
    now_E: Int64s
    more_E: Int32s
    fall_E: Int64s
    rise_E: Int64s
    load_G: Int64s
    copies_EG: Int32s
    pull_E: Int64s
    square_E: Int64s
    head_E: Int64s
    next_R: Int64s
    was_EG: Bools
    near_EN: Bools
    open_BN: Bools
    touched_G: Bools


@entry
def new_layer(experts: int, replicas: int, gpus: int, rules: Rules) -> Layer:
    """Room for one layer."""
    return Layer(
        np.empty(replicas, np.int64),
        np.empty(replicas, np.int64),
        np.arange(replicas) // (replicas // gpus),
        np.empty(experts, np.int64),
        np.empty(experts, np.int64),
        np.empty(experts, np.int64),
        np.empty(experts, np.int32),
        np.empty(experts, np.int64),
        np.empty(experts, np.int64),
        np.empty(gpus, np.int64),
        np.empty((experts, gpus), np.int32),
        np.empty(experts, np.int64),
        np.empty(experts, np.int64),
        np.empty(experts, np.int64),
        np.empty(replicas, np.int64),
        np.empty((experts, gpus), np.bool_),
        np.empty((experts, rules.num_nodes), np.bool_),
        np.empty((rules.num_groups, rules.num_nodes), np.bool_),
        np.empty(gpus, np.bool_),
    )


@compiled
def begin(layer: Layer, start_R: Int64s, weight_E: Int32s) -> None:
    """Set the layer to the placement that it starts from."""
    _clear(layer)
    (groups, nodes), gpus = layer.open_BN.shape, len(layer.load_G)
    slots, experts = len(start_R) // gpus, len(weight_E)
    for g in range(gpus):
        node = g * nodes // gpus
        for r in range(g * slots, (g + 1) * slots):
            e = start_R[r]
            layer.start_R[r] = e
            layer.expert_R[r] = e
            layer.logcnt_E[e] += 1
            layer.copies_EG[e, g] += 1
            layer.was_EG[e, g] = True
            layer.near_EN[e, node] = True
            if groups > 1:
                layer.open_BN[e * groups // experts, node] = True
    for e in range(experts):
        layer.weight_E[e] = weight_E[e]
        _weigh(layer, e)
    refresh(layer)


@compiled
def is_open(layer: Layer, expert: int, gpu: int) -> bool:
    """Whether an expert may arrive on a GPU: it is not there, and its group may be."""
    if layer.copies_EG[expert, gpu] > 0:
        return False
    groups, nodes = layer.open_BN.shape
    if groups == 1:
        return True
    experts, gpus = layer.copies_EG.shape
    return bool(layer.open_BN[expert * groups // experts, gpu * nodes // gpus])


@compiled
def arrival_cost(layer: Layer, rules: Rules, expert: int, gpu: int) -> float:
    """Net moves of an expert's arrival on a GPU: none if it was there at the start."""
    if layer.was_EG[expert, gpu]:
        return 0.0
    nodes = layer.near_EN.shape[1]
    if nodes == 1 or layer.near_EN[expert, gpu * nodes // len(layer.load_G)]:
        return 1.0
    return rules.cross_node_cost


@compiled
def put(layer: Layer, slot: int, expert: int) -> None:
    """Give a slot to another expert; call `refresh` when all slots are as they should be."""
    gpu = layer.gpu_R[slot]
    old = layer.expert_R[slot]
    layer.expert_R[slot] = expert
    layer.copies_EG[old, gpu] -= 1
    layer.copies_EG[expert, gpu] += 1
    layer.logcnt_E[old] -= 1
    layer.logcnt_E[expert] += 1
    layer.touched_G[gpu] = True
    _weigh(layer, old)
    _weigh(layer, expert)


@compiled
def refresh(layer: Layer) -> None:
    """Sum up what follows from the slots."""
    gpus = len(layer.load_G)
    slots = len(layer.expert_R) // gpus
    for e in range(len(layer.weight_E)):
        layer.pull_E[e] = 0
        layer.square_E[e] = 0
        layer.head_E[e] = NO_SLOT
    for g in range(gpus - 1, -1, -1):
        load = np.int64(0)
        for r in range((g + 1) * slots - 1, g * slots - 1, -1):
            e = layer.expert_R[r]
            load += layer.now_E[e]
            layer.next_R[r] = layer.head_E[e]
            layer.head_E[e] = r
        layer.load_G[g] = load
        for r in range(g * slots, (g + 1) * slots):
            e = layer.expert_R[r]
            layer.pull_E[e] += load
            layer.square_E[e] += layer.copies_EG[e, g]


@compiled
def _clear(layer: Layer) -> None:
    """Forget what came before."""
    (experts, gpus), (groups, nodes) = layer.copies_EG.shape, layer.open_BN.shape
    for e in range(experts):
        layer.logcnt_E[e] = 0
        for g in range(gpus):
            layer.copies_EG[e, g] = 0
            layer.was_EG[e, g] = False
        for n in range(nodes):
            layer.near_EN[e, n] = False
    for b in range(groups):
        for n in range(nodes):
            layer.open_BN[b, n] = False
    for g in range(gpus):
        layer.touched_G[g] = False


@compiled
def _weigh(layer: Layer, expert: int) -> None:
    """What an expert's replicas weigh, with its number of slots as it is."""
    weight, count = float(layer.weight_E[expert]), layer.logcnt_E[expert]
    # Quotients of numbers this small round down in float64 as integers would.
    now = np.int64(weight / max(count, 1))
    more = np.int64(weight / (count + 1))
    layer.now_E[expert] = now
    layer.more_E[expert] = more
    layer.fall_E[expert] = now - more
    layer.rise_E[expert] = np.int64(weight / max(count - 1, 1)) - now
