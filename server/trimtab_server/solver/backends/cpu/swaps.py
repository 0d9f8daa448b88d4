"""The best swap of two experts between GPUs; see the reference's `candidates`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from trimtab_server.solver.backends.cpu.arrays import Floats, Int64s
from trimtab_server.solver.backends.cpu.compiled import compiled, entry
from trimtab_server.solver.backends.cpu.layer import Layer, Rules, arrival_cost, is_open
from trimtab_server.solver.backends.cpu.step import Step, Terms, gain_to_beat, score_of
from trimtab_server.solver.backends.cpu.window import highest

# A rank has the number of a GPU in the low bits, and its load, which is below 2**30, above them.
_MAX_LOAD = 1 << 30
_GPU_BITS = 20
_GPU_MASK = (1 << _GPU_BITS) - 1

_INFINITE = np.inf

_ROUNDING = 1e-9
"""More than the rounding of a sum of a few costs, as a share of the largest cost."""


class Ends(NamedTuple):
    """The GPUs between which swaps are tried.

    Attributes:
        heavy_K: int64, the heaviest in descending order, equal ones by number.
        light_K: int64, the lightest in ascending order, equal ones by number.
        cost_K: float64, the lowest cost of a swap between one heavy GPU and each light one.
        rank_G: int64, scratch: load and number of a GPU in one integer.
    """

    heavy_K: Int64s
    light_K: Int64s
    cost_K: Floats
    rank_G: Int64s


@entry
def new_ends(gpus: int, top_k: int) -> Ends:
    """Allocate the K heaviest and the K lightest GPUs, or all GPUs if there are fewer."""
    top_k = min(top_k, gpus)
    return Ends(
        np.empty(top_k, np.int64),
        np.empty(top_k, np.int64),
        np.empty(top_k),
        np.empty(gpus, np.int64),
    )


@compiled
def find_ends(layer: Layer, ends: Ends) -> None:
    """Find the heaviest and the lightest GPUs."""
    _select(layer, True, ends.rank_G, ends.heavy_K)
    _select(layer, False, ends.rank_G, ends.light_K)


@compiled
def best_swap(layer: Layer, rules: Rules, ends: Ends, terms: Terms, best: Step) -> Step:
    """The swap with the highest score if that exceeds the score of `best`; else `best`."""
    slots = len(layer.expert_R) // len(layer.load_G)
    for i in range(len(ends.heavy_K)):
        a = ends.heavy_K[i]
        for j in range(len(ends.light_K)):
            ends.cost_K[j] = _min_cost(layer, rules, a, ends.light_K[j])
        # Slot by slot with all light GPUs: this order settles ties.
        for r in range(a * slots, (a + 1) * slots):
            for j in range(len(ends.light_K)):
                b = ends.light_K[j]
                gap = layer.load_G[a] - layer.load_G[b]
                needed = gain_to_beat(best, ends.cost_K[j], terms)
                if a != b and gap * gap // 2 > needed and is_open(layer, layer.expert_R[r], b):
                    best = _best_swap_with(layer, rules, r, b, needed, terms, best)
    return best


@compiled
def _best_swap_with(
    layer: Layer, rules: Rules, slot: int, b: int, needed: int, terms: Terms, best: Step
) -> Step:
    """The best swap of a slot with one on GPU b that gains more than `needed`, or `best`."""
    slots = len(layer.expert_R) // len(layer.load_G)
    u, a = layer.expert_R[slot], layer.gpu_R[slot]
    gap = layer.load_G[a] - layer.load_G[b]
    for s in range(b * slots, (b + 1) * slots):
        v = layer.expert_R[s]
        delta = layer.now_E[u] - layer.now_E[v]
        gain = 2 * delta * (gap - delta)
        if gain <= needed or not is_open(layer, v, a):
            continue
        cost = arrival_cost(layer, rules, u, b) + arrival_cost(layer, rules, v, a)
        cost = cost - arrival_cost(layer, rules, u, a) - arrival_cost(layer, rules, v, b)
        score = score_of(gain, cost, terms)
        if score > best.score:
            best = Step(score, cost, slot, s, v)
    return best


@compiled
def _min_cost(layer: Layer, rules: Rules, a: int, b: int) -> float:
    """A lower bound on the cost of a swap between two GPUs.

    It is 2 if the GPUs are as at the start, since both experts arrive where they were not. After
    other steps, an expert may return, or leave a GPU to which it came in an earlier step.
    """
    if not (layer.touched_G[a] or layer.touched_G[b]):
        return 2.0
    return _min_cost_one_way(layer, rules, a, b) + _min_cost_one_way(layer, rules, b, a)


@compiled
def _min_cost_one_way(layer: Layer, rules: Rules, source: int, target: int) -> float:
    slots = len(layer.expert_R) // len(layer.load_G)
    lowest = _INFINITE
    for r in range(source * slots, (source + 1) * slots):
        u = layer.expert_R[r]
        cost = arrival_cost(layer, rules, u, target) - arrival_cost(layer, rules, u, source)
        lowest = min(lowest, cost)
    # With room for rounding, which depends on the order in which costs are added up.
    return lowest - _ROUNDING * rules.cross_node_cost


@compiled
def _select(layer: Layer, heavy: bool, rank_G: Int64s, out_K: Int64s) -> None:
    """Write the heaviest, or the lightest, GPUs in order, equal ones by number."""
    for g in range(len(rank_G)):
        load = layer.load_G[g] if heavy else _MAX_LOAD - layer.load_G[g]
        rank_G[g] = load << _GPU_BITS | (_GPU_MASK - g)
    for k in range(len(out_K)):
        out_K[k] = _GPU_MASK - (highest(rank_G) & _GPU_MASK)
        rank_G[out_K[k]] = -1
