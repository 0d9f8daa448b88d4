"""The best transfer of a slot to another expert; see the reference's `candidates`.

With d_h the change of GPU h, a transfer changes the sum of squared loads by the sum of
2 W_h d_h + d_h^2. Split into terms that depend on the slot (its expert e and its GPU), on the
expert f that gets it (the taker), and on both, its gain is

    fixed - 2 more_f omega + base_f + 2 rise_e fall_f beside_ef,

where `fixed` and `omega` depend on the slot, and `beside` counts pairs of a slot of e and a
slot of f on one GPU.

No GPU may get heavier than the heaviest is now. The other GPUs of e get heavier, except that
f relieves those on which it lies. A slot is skipped if one of these GPUs gets too heavy for
every f; otherwise they are checked for each f that would win.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from trimtab_server.solver.backends.cpu.arrays import Int32s, Int64s
from trimtab_server.solver.backends.cpu.compiled import compiled, entry
from trimtab_server.solver.backends.cpu.layer import (
    NO_SLOT,
    Layer,
    Rules,
    arrival_cost,
    is_open,
    per_replica,
)
from trimtab_server.solver.backends.cpu.step import Step, Terms, gain_to_beat, score_of

_NOT_IN = -1
_FOUND = 0
_LOWEST = np.iinfo(np.int64).min // 2
"""Below all gains; half of the minimum, so that sums with it do not overflow."""


class Takers(NamedTuple):
    """The H experts of the heaviest GPUs, in ascending order: only these may get a slot.

    Attributes:
        cell_E: int64, the index of an expert in the arrays below, or _NOT_IN.
        expert_H: int64, the experts; with room for one more.
        more_H: int32, the load of each of its replicas if it had one more.
        fall_H: int64, how much lighter that is than a replica now.
        base_H: int64, its contribution to the gain of any slot.
        added_H: int64, its contribution to the gain of the current slot.
        spare_R: int64, scratch: the slots that takers may get.
        fall_G: int64, by how much any of them can relieve a GPU, at most.
    """

    cell_E: Int64s
    expert_H: Int64s
    more_H: Int32s
    fall_H: Int64s
    base_H: Int64s
    added_H: Int64s
    spare_R: Int64s
    fall_G: Int64s


class Others(NamedTuple):
    """The other GPUs of an expert that gives up a slot.

    Attributes:
        added: by how much their squares grow.
        peak: the load that the heaviest of them then has at least, for every taker.
        fall: an upper bound on the load that a taker relieves them of in all.
    """

    added: int
    peak: int
    fall: int


@entry
def new_takers(experts: int, replicas: int, gpus: int, top_k: int) -> Takers:
    """Allocate takers for the experts of K GPUs."""
    room = min(experts, top_k * (replicas // gpus)) + 1
    return Takers(
        np.empty(experts, np.int64),
        np.empty(room, np.int64),
        np.empty(room, np.int32),
        np.empty(room, np.int64),
        np.empty(room, np.int64),
        np.empty(room, np.int64),
        np.empty(replicas, np.int64),
        np.empty(gpus, np.int64),
    )


@compiled
def best_transfer(
    layer: Layer, rules: Rules, heavy_K: Int64s, takers: Takers, terms: Terms, best: Step
) -> Step:
    """The transfer with the highest score if that exceeds the score of `best`; else `best`."""
    count, peak = _find_takers(layer, heavy_K, takers), layer.load_G[heavy_K[0]]
    for i in range(_find_spare(layer, takers.spare_R)):
        slot = takers.spare_R[i]
        best = _best_transfer_of(layer, rules, slot, peak, takers, count, terms, best)
    return best


@compiled
def _find_spare(layer: Layer, spare_R: Int64s) -> int:
    """List the slots of experts that have several, in ascending order, and return how many."""
    count = 0
    for r in range(len(spare_R)):
        # Without a branch, which the processor could not predict.
        spare_R[count] = r
        count += layer.logcnt_E[layer.expert_R[r]] > 1
    return count


@compiled
def _find_takers(layer: Layer, heavy_K: Int64s, takers: Takers) -> int:
    """List the experts of the heaviest GPUs, and return how many."""
    slots = len(layer.expert_R) // len(layer.load_G)
    takers.cell_E[:] = _NOT_IN
    takers.fall_G[:] = 0
    for k in range(len(heavy_K)):
        for r in range(heavy_K[k] * slots, (heavy_K[k] + 1) * slots):
            takers.cell_E[layer.expert_R[r]] = _FOUND
    count = 0
    for f in range(len(takers.cell_E)):
        # Without a branch, which the processor could not predict.
        takers.expert_H[count] = f
        count += takers.cell_E[f] == _FOUND
    for i in range(count):
        takers.cell_E[takers.expert_H[i]] = i
        _describe(layer, takers, i)
    return count


@compiled
def _describe(layer: Layer, takers: Takers, i: int) -> None:
    """Fill in the values of a taker that do not depend on the slot."""
    f = takers.expert_H[i]
    more = per_replica(layer, f, layer.logcnt_E[f] + 1)
    fall = layer.now_E[f] - more
    pull = square = np.int64(0)
    r = layer.head_E[f]
    while r != NO_SLOT:
        g = layer.gpu_R[r]
        pull += layer.load_G[g]
        square += layer.copies_EG[f, g]
        r = layer.next_R[r]
    r = layer.head_E[f]
    while r != NO_SLOT:
        g = layer.gpu_R[r]
        takers.fall_G[g] = max(takers.fall_G[g], fall * layer.copies_EG[f, g])
        r = layer.next_R[r]
    takers.more_H[i] = more
    takers.fall_H[i] = fall
    takers.base_H[i] = -fall * (fall * square - 2 * pull) - more * more


@compiled
def _best_transfer_of(
    layer: Layer,
    rules: Rules,
    slot: int,
    peak: int,
    takers: Takers,
    count: int,
    terms: Terms,
    best: Step,
) -> Step:
    """The best transfer of one slot, whose expert has several, or `best` if none scores higher."""
    e, g = layer.expert_R[slot], layer.gpu_R[slot]
    leaving = arrival_cost(layer, rules, e, g)
    # Only an expert that was on the GPU at the start arrives without cost.
    min_cost = -leaving if layer.touched_G[g] else 1.0 - leaving
    if min_cost > terms.left:
        return best
    now, stays = layer.now_E[e], np.int64(layer.copies_EG[e, g]) - 1
    rise = per_replica(layer, e, layer.logcnt_E[e] - 1) - now
    others = _sum_up_others(layer, takers, e, g, rise)
    if others.peak > peak:
        return best
    loaded = layer.load_G[g] + rise * stays
    of_stays = rise * stays * (layer.load_G[g] + loaded)
    fixed, omega = now * (2 * loaded - now) - others.added - of_stays, loaded - now
    needed = gain_to_beat(best, min_cost, terms) - fixed
    if _max_added(takers, count, omega) + 2 * rise * others.fall <= needed:
        return best
    _add(layer, takers, count, e, rise, omega)
    for i in range(count):
        f = takers.expert_H[i]
        if takers.added_H[i] <= needed or takers.more_H[i] > peak - omega:
            continue
        if not is_open(layer, f, g):
            continue
        cost = arrival_cost(layer, rules, f, g) - leaving
        score = score_of(fixed + takers.added_H[i], cost, terms)
        if score > best.score and _keeps_peak(layer, takers, i, e, g, rise, peak):
            best = Step(score, cost, slot, NO_SLOT, f)
            needed = gain_to_beat(best, min_cost, terms) - fixed
    return best


@compiled
def _sum_up_others(layer: Layer, takers: Takers, e: int, gpu: int, rise: int) -> Others:
    """Sum up the other GPUs of an expert whose replicas there get heavier by `rise`."""
    added, peak, fall = np.int64(0), np.int64(-1), np.int64(0)
    r = layer.head_E[e]
    while r != NO_SLOT:
        g = layer.gpu_R[r]
        if g != gpu:
            risen = layer.load_G[g] + rise * layer.copies_EG[e, g]
            added += rise * (layer.load_G[g] + risen)
            peak = max(peak, risen - takers.fall_G[g])
            fall += takers.fall_G[g]
        r = layer.next_R[r]
    return Others(added, peak, fall)


@compiled
def _keeps_peak(
    layer: Layer, takers: Takers, i: int, e: int, gpu: int, rise: int, peak: int
) -> bool:
    """Whether no other GPU of e exceeds the peak if the i-th taker gets the slot."""
    f, fall = takers.expert_H[i], takers.fall_H[i]
    r = layer.head_E[e]
    while r != NO_SLOT:
        g = layer.gpu_R[r]
        risen = layer.load_G[g] + rise * layer.copies_EG[e, g]
        if g != gpu and risen - fall * layer.copies_EG[f, g] > peak:
            return False
        r = layer.next_R[r]
    return True


@compiled
def _max_added(takers: Takers, count: int, omega: int) -> int:
    """The highest contribution of any taker to the gain, without the term in `beside`."""
    # Both factors have 32 bits, so the product is cheap.
    factor, highest = np.int64(np.int32(omega)), np.int64(_LOWEST)
    for i in range(count):
        highest = max(highest, takers.base_H[i] - 2 * (np.int64(takers.more_H[i]) * factor))
    return highest


@compiled
def _add(layer: Layer, takers: Takers, count: int, e: int, rise: int, omega: int) -> None:
    """Fill in `added_H` for a slot of e."""
    factor = np.int64(np.int32(omega))
    for i in range(count):
        takers.added_H[i] = takers.base_H[i] - 2 * (np.int64(takers.more_H[i]) * factor)
    slots = len(layer.expert_R) // len(layer.load_G)
    r = layer.head_E[e]
    while r != NO_SLOT:
        first = layer.gpu_R[r] * slots
        for s in range(first, first + slots):
            cell = takers.cell_E[layer.expert_R[s]]
            if cell != _NOT_IN:
                takers.added_H[cell] += 2 * rise * takers.fall_H[cell]
        r = layer.next_R[r]
