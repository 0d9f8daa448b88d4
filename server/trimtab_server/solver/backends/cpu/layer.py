"""The state of a layer while `improve` works on it, from which gains and costs are computed.

All sums are of integers (see `quantise`), so gains are exact.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from trimtab_server.solver.backends.cpu.arrays import Bools, Int32s, Int64s
from trimtab_server.solver.backends.cpu.compiled import compiled, entry

NO_SLOT = -1


class Rules(NamedTuple):
    """The rules for steps, the same for all layers of a call.

    Attributes:
        top_k: how many heaviest GPUs have their experts tried, and how many lightest swap.
        num_nodes: N.
        num_groups: router groups; 1 without groups.
        cross_node_cost: the cost of a move from another node.
    """

    top_k: int
    num_nodes: int
    num_groups: int
    cross_node_cost: float


class Layer(NamedTuple):
    """A layer now and at the start. E experts, R slots, S of them on each of G GPUs.

    Attributes:
        start_R: int64, the expert of each slot at the start.
        expert_R: int64, the expert of each slot now.
        gpu_R: int64, the GPU of each slot.
        node_G: int64, the node of each GPU.
        group_E: int64, the router group of each expert.
        weight_E: int64, the whole load of each expert.
        logcnt_E: int64, slots of each expert.
        now_E: int64, load of each replica of an expert.
        load_G: int64, load of each GPU.
        copies_EG: int32, slots of each expert on each GPU.
        head_E: int64, the first slot in the linked list of each expert's slots.
        next_R: int64, the next slot of the same expert, or NO_SLOT.
        was_EG: bool, whether an expert lay on a GPU at the start.
        near_EN: bool, whether an expert lay on a node at the start.
        open_BN: bool, whether a router group may lie on a node.
        touched_G: bool, whether the slots of a GPU have changed since the start.
    """

    start_R: Int64s
    expert_R: Int64s
    gpu_R: Int64s
    node_G: Int64s
    group_E: Int64s
    weight_E: Int64s
    logcnt_E: Int64s
    now_E: Int64s
    load_G: Int64s
    copies_EG: Int32s
    head_E: Int64s
    next_R: Int64s
    was_EG: Bools
    near_EN: Bools
    open_BN: Bools
    touched_G: Bools


@entry
def new_layer(experts: int, replicas: int, gpus: int, rules: Rules) -> Layer:
    """Allocate the state of one layer."""
    return Layer(
        np.zeros(replicas, np.int64),
        np.zeros(replicas, np.int64),
        np.arange(replicas) // (replicas // gpus),
        np.arange(gpus) // (gpus // rules.num_nodes),
        np.arange(experts) // (experts // rules.num_groups),
        np.empty(experts, np.int64),
        np.empty(experts, np.int64),
        np.empty(experts, np.int64),
        np.empty(gpus, np.int64),
        np.zeros((experts, gpus), np.int32),
        np.empty(experts, np.int64),
        np.empty(replicas, np.int64),
        np.zeros((experts, gpus), np.bool_),
        np.empty((experts, rules.num_nodes), np.bool_),
        np.empty((rules.num_groups, rules.num_nodes), np.bool_),
        np.empty(gpus, np.bool_),
    )


@compiled
def reset(layer: Layer, start_R: Int64s, weight_E: Int32s) -> None:
    """Set the layer to a placement and loads."""
    _clear(layer)
    (groups, nodes), gpus = layer.open_BN.shape, len(layer.load_G)
    slots, experts = len(start_R) // gpus, len(weight_E)
    for g in range(gpus):
        node = layer.node_G[g]
        for r in range(g * slots, (g + 1) * slots):
            e = start_R[r]
            layer.start_R[r] = e
            layer.expert_R[r] = e
            layer.logcnt_E[e] += 1
            layer.copies_EG[e, g] += 1
            layer.next_R[r] = layer.head_E[e]
            layer.head_E[e] = r
            layer.was_EG[e, g] = True
            if nodes > 1:
                layer.near_EN[e, node] = True
            if groups > 1:
                layer.open_BN[layer.group_E[e], node] = True
    for e in range(experts):
        layer.weight_E[e] = weight_E[e]
        layer.now_E[e] = per_replica(layer, e, layer.logcnt_E[e])
    for g in range(gpus):
        load = np.int64(0)
        for r in range(g * slots, (g + 1) * slots):
            load += layer.now_E[layer.expert_R[r]]
        layer.load_G[g] = load


@compiled
def is_open(layer: Layer, expert: int, gpu: int) -> bool:
    """Whether an expert may arrive on a GPU: it is not there yet, and its group is allowed."""
    if layer.copies_EG[expert, gpu] > 0:
        return False
    if len(layer.open_BN) == 1:
        return True
    return bool(layer.open_BN[layer.group_E[expert], layer.node_G[gpu]])


@compiled
def arrival_cost(layer: Layer, rules: Rules, expert: int, gpu: int) -> float:
    """The cost of an expert's arrival on a GPU, in net moves; 0 if it was there at the start."""
    if layer.was_EG[expert, gpu]:
        return 0.0
    nodes = layer.near_EN.shape[1]
    if nodes == 1 or layer.near_EN[expert, layer.node_G[gpu]]:
        return 1.0
    return rules.cross_node_cost


@compiled
def give_slot(layer: Layer, slot: int, expert: int) -> None:
    """Give a slot to another expert."""
    gpu, old = layer.gpu_R[slot], layer.expert_R[slot]
    layer.expert_R[slot] = expert
    layer.copies_EG[old, gpu] -= 1
    layer.copies_EG[expert, gpu] += 1
    layer.touched_G[gpu] = True
    layer.load_G[gpu] += layer.now_E[expert] - layer.now_E[old]
    if layer.head_E[old] == slot:
        layer.head_E[old] = layer.next_R[slot]
    else:
        r = layer.head_E[old]
        while layer.next_R[r] != slot:
            r = layer.next_R[r]
        layer.next_R[r] = layer.next_R[slot]
    layer.next_R[slot] = layer.head_E[expert]
    layer.head_E[expert] = slot
    _recount(layer, old, -1)
    _recount(layer, expert, 1)


@compiled
def per_replica(layer: Layer, expert: int, count: int) -> int:
    """The load of each replica of an expert that has `count` replicas (1 if that is below 1)."""
    # For numbers this small, float64 division rounds down to the same integer quotient.
    return np.int64(float(layer.weight_E[expert]) / max(count, 1))


@compiled
def _recount(layer: Layer, expert: int, more: int) -> None:
    """Spread an expert's load over its slots, of which there are `more` than before."""
    layer.logcnt_E[expert] += more
    now = per_replica(layer, expert, layer.logcnt_E[expert])
    change = now - layer.now_E[expert]
    layer.now_E[expert] = now
    r = layer.head_E[expert]
    while r != NO_SLOT:
        layer.load_G[layer.gpu_R[r]] += change
        r = layer.next_R[r]


@compiled
def _clear(layer: Layer) -> None:
    """Clear the state; in large tables only the cells that were set."""
    for r in range(len(layer.expert_R)):
        g = layer.gpu_R[r]
        layer.copies_EG[layer.expert_R[r], g] = 0
        layer.was_EG[layer.start_R[r], g] = False
    layer.logcnt_E[:] = 0
    layer.head_E[:] = NO_SLOT
    layer.near_EN[:] = False
    layer.open_BN[:] = False
    layer.touched_G[:] = False
