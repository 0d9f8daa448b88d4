"""`improve` over layers, like the reference's."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from trimtab_server.solver.backends.cpu.align import keep_slots
from trimtab_server.solver.backends.cpu.arrays import Bools, Floats, Int64s
from trimtab_server.solver.backends.cpu.balance import gpu_loads
from trimtab_server.solver.backends.cpu.compiled import compiled, entry
from trimtab_server.solver.backends.cpu.layer import (
    NO_SLOT,
    Layer,
    Rules,
    give_slot,
    new_layer,
    reset,
)
from trimtab_server.solver.backends.cpu.quantise import quantise
from trimtab_server.solver.backends.cpu.step import Step, Terms
from trimtab_server.solver.backends.cpu.swaps import Ends, best_swap, find_ends, new_ends
from trimtab_server.solver.backends.cpu.threads import for_parts
from trimtab_server.solver.backends.cpu.transfers import Takers, best_transfer, new_takers
from trimtab_server.solver.backends.cpu.window import highest

_NS_PER_SLOT = 20
"""About how long a slot takes, at the start and in each step: `make bench ARGS="busy improve"`."""

_USUAL_STEPS = 4
"""How many steps a layer without a budget takes, at least."""

_FIRST_ROOM = 32
"""Steps of a layer for which there is room at first. If it takes more, it is computed again."""


class Paths(NamedTuple):
    """The steps of each layer, in order. There is room for Z steps.

    Attributes:
        length_L: int64, steps taken; above Z if the room was too small.
        score_LZ: float64, gain per net move of each step.
        cost_LZ: float64, net moves.
        slot_LZ3: int64 [L, Z, 3], slot, other slot (NO_SLOT in transfers), expert.
    """

    length_L: Int64s
    score_LZ: Floats
    cost_LZ: Floats
    slot_LZ3: Int64s


class Answer(NamedTuple):
    """The placement, int64 [L, R], and the swaps that led to it, int64 [L]."""

    new_LR: Int64s
    swaps_L: Int64s


class _Scratch(NamedTuple):
    """Scratch memory for evaluating a new placement of a layer."""

    share_E: Floats
    load_R: Floats
    load_G: Floats
    kept_S: Bools


def improve_layers(
    start_LR: Int64s,
    load_LE: Floats,
    num_gpus: int,
    rules: Rules,
    min_gain_L: Floats,
    left: float,
    max_moves: float,
) -> tuple[Int64s, int, int]:
    """Improve each layer within its own budget, then keep the steps that the common budget allows.

    Args:
        start_LR: int64 [L, R], a placement that holds every expert.
        load_LE: float64 [L, E], finite, >= 0.
        num_gpus: G.
        rules: of the steps.
        min_gain_L: float64 [L], the gain that each net move of a layer needs.
        left: net moves allowed in each layer.
        max_moves: net moves allowed over all layers.

    Returns:
        The placement, int64 [L, R]; steps taken; and swaps among the steps kept.
    """
    layers, replicas = start_LR.shape
    answer = Answer(np.empty_like(start_LR), np.zeros(layers, np.int64))
    job = start_LR, load_LE, num_gpus

    def take_steps(room: int) -> Paths:
        length_L, slot_LZ3 = np.zeros(layers, np.int64), np.empty((layers, room, 3), np.int64)
        paths = Paths(length_L, np.empty((layers, room)), np.empty((layers, room)), slot_LZ3)
        limits = rules, min_gain_L, left
        for_parts(
            layers,
            lambda first, end: _take_steps(*job, *limits, first, end, paths, answer),
            nanoseconds=_NS_PER_SLOT * replicas * (1 + min(left, _USUAL_STEPS)),
        )
        return paths

    paths = take_steps(_FIRST_ROOM)
    longest = int(paths.length_L.max())
    if longest > _FIRST_ROOM:
        paths = take_steps(longest)
    if max_moves < np.inf:
        kept_L = _spend(paths, max_moves)
        for_parts(
            layers,
            lambda first, end: _cut_short(*job, paths, kept_L, first, end, answer),
            nanoseconds=_NS_PER_SLOT * replicas,
        )
    return answer.new_LR, int(paths.length_L.sum()), int(answer.swaps_L.sum())


@entry
def _take_steps(
    start_LR: Int64s,
    load_LE: Floats,
    num_gpus: int,
    rules: Rules,
    min_gain_L: Floats,
    left: float,
    first: int,
    end: int,
    paths: Paths,
    answer: Answer,
) -> None:
    """Write the best steps of layers `first` to `end` to `paths`, and the result to `answer`."""
    experts, replicas = load_LE.shape[1], start_LR.shape[1]
    layer = new_layer(experts, replicas, num_gpus, rules)
    ends = new_ends(num_gpus, rules.top_k)
    takers = new_takers(experts, replicas, num_gpus, len(ends.heavy_K))
    scratch = _new_scratch(experts, replicas, num_gpus)
    weight_E = np.empty(experts, np.int32)
    for x in range(first, end):
        quantise(load_LE[x], experts, weight_E)
        reset(layer, start_LR[x], weight_E)
        length = _walk(layer, rules, ends, takers, min_gain_L[x], left, paths, x)
        paths.length_L[x] = length
        if length <= paths.score_LZ.shape[1]:
            _finish(start_LR[x], load_LE[x], paths, x, length, scratch, answer)


@compiled
def _walk(
    layer: Layer,
    rules: Rules,
    ends: Ends,
    takers: Takers,
    min_gain: float,
    left: float,
    paths: Paths,
    x: int,
) -> int:
    """Take steps until none gains, and return how many."""
    length = 0
    while True:
        step = _best_step(layer, rules, ends, takers, min_gain, left)
        if step.score <= 0:
            return length
        if length < paths.score_LZ.shape[1]:
            paths.score_LZ[x, length] = step.score
            paths.cost_LZ[x, length] = step.cost
            paths.slot_LZ3[x, length, 0] = step.slot
            paths.slot_LZ3[x, length, 1] = step.other_slot
            paths.slot_LZ3[x, length, 2] = step.expert
        length += 1
        left -= step.cost
        given = layer.expert_R[step.slot]
        give_slot(layer, step.slot, step.expert)
        if step.other_slot != NO_SLOT:
            give_slot(layer, step.other_slot, given)


@compiled
def _best_step(
    layer: Layer, rules: Rules, ends: Ends, takers: Takers, min_gain: float, left: float
) -> Step:
    """The step with the highest score that the moves left allow."""
    total = np.int64(0)
    for g in range(len(layer.load_G)):
        total += layer.load_G[g]
    mean = max(total / len(layer.load_G), 1.0)
    terms = Terms(mean * mean, left, min_gain)
    best = Step(0.0, 0.0, NO_SLOT, NO_SLOT, NO_SLOT)
    find_ends(layer, ends)
    best = best_swap(layer, rules, ends, terms, best)
    return best_transfer(layer, rules, ends.heavy_K, takers, terms, best)


@entry
def _spend(paths: Paths, max_moves: float) -> Int64s:
    """How many steps each layer keeps: repeatedly the best next step of any layer that fits."""
    layers = len(paths.length_L)
    kept_L = np.zeros(layers, np.int64)
    next_L = np.zeros(layers)
    for x in range(layers):
        if paths.length_L[x] > 0:
            next_L[x] = paths.score_LZ[x, 0]
    while True:
        x = np.argmax(next_L)
        if next_L[x] <= 0:
            return kept_L
        next_L[x] = 0.0
        cost = paths.cost_LZ[x, kept_L[x]]
        if cost <= max_moves:
            max_moves -= cost
            kept_L[x] += 1
            if kept_L[x] < paths.length_L[x]:
                next_L[x] = paths.score_LZ[x, kept_L[x]]


@entry
def _cut_short(
    start_LR: Int64s,
    load_LE: Floats,
    num_gpus: int,
    paths: Paths,
    kept_L: Int64s,
    first: int,
    end: int,
    answer: Answer,
) -> None:
    """Rewrite the answer for the layers from `first` to `end` that keep fewer steps."""
    scratch = _new_scratch(load_LE.shape[1], start_LR.shape[1], num_gpus)
    for x in range(first, end):
        if kept_L[x] < paths.length_L[x]:
            _finish(start_LR[x], load_LE[x], paths, x, kept_L[x], scratch, answer)


@compiled
def _finish(
    start_R: Int64s,
    load_E: Floats,
    paths: Paths,
    x: int,
    kept: int,
    scratch: _Scratch,
    answer: Answer,
) -> None:
    """Apply the first `kept` steps of layer x, or fewer if the heaviest GPU would get heavier.

    Rounding to integers can hide a rise in the last digit.
    """
    _apply_steps(start_R, paths, x, kept, answer)
    if kept == 0:
        return
    share_E, scratch_R, load_G, kept_S = scratch
    new_R = answer.new_LR[x]
    gpu_loads(start_R, load_E, share_E, scratch_R, load_G)
    peak_before = highest(load_G)
    while True:
        keep_slots(new_R, start_R, kept_S)
        gpu_loads(new_R, load_E, share_E, scratch_R, load_G)
        if highest(load_G) <= peak_before:
            return
        kept -= 1
        _apply_steps(start_R, paths, x, kept, answer)


@compiled
def _apply_steps(start_R: Int64s, paths: Paths, x: int, kept: int, answer: Answer) -> None:
    new_R = answer.new_LR[x]
    _copy(start_R, new_R)
    answer.swaps_L[x] = 0
    for step in range(kept):
        slot, other_slot, expert = paths.slot_LZ3[x, step]
        given, new_R[slot] = new_R[slot], expert
        if other_slot != NO_SLOT:
            new_R[other_slot] = given
            answer.swaps_L[x] += 1


@compiled
def _copy(source_R: Int64s, target_R: Int64s) -> None:
    for r in range(len(source_R)):
        target_R[r] = source_R[r]


@entry
def _new_scratch(experts: int, replicas: int, gpus: int) -> _Scratch:
    return _Scratch(
        np.empty(experts), np.empty(replicas), np.empty(gpus), np.empty(replicas // gpus, np.bool_)
    )
