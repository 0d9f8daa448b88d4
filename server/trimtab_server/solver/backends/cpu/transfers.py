"""The best transfer of a slot to another expert: see the reference's `candidates`.

With d_h the change of GPU h, a transfer changes the sum of squared loads by the sum of
2 W_h d_h + d_h^2. Sorted by what depends on the slot (its expert e and its GPU), on the
expert f that gets it, and on both, its gain is

    fixed - 2 more_f omega + base_f + 2 rise_e fall_f beside_ef,

where `fixed` and `omega` belong to the slot, and `beside` counts pairs of a slot of e and a
slot of f on one GPU. Without that last term, rare and >= 0, the most that any f adds is a
convex function of omega alone: a chord above it, the same for all slots, says of most
that they cannot gain enough.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from trimtab_server.solver.backends.cpu.balance import Floats
from trimtab_server.solver.backends.cpu.compiled import compiled, entry
from trimtab_server.solver.backends.cpu.layer import (
    NO_SLOT,
    Int32s,
    Int64s,
    Layer,
    Rules,
    arrival_cost,
    is_open,
)
from trimtab_server.solver.backends.cpu.step import Step, Terms, gain_to_beat, score_of
from trimtab_server.solver.backends.cpu.window import highest

_CHORDS = 4
_BLOCK = 32
_ROUNDING = 2.0**-48
_LEAST = np.iinfo(np.int64).min // 2


class Donors(NamedTuple):
    """Slots whose expert has others, and room for the search among them.

    Attributes:
        slot_R: int64, the slots; as many entries as there are.
        fixed_R: int64, what any expert that gets the slot gains.
        omega_R: int64, load of the slot's GPU without it.
        room_R: int64, the heaviest replica that the slot may get.
        base_E: int64, what each expert adds to the gain of any slot.
        base_R: int64, the same of the expert in each slot, and so the next three: those
            of one GPU lie side by side.
        more_R: int32.
        fall_R: int64.
        logcnt_R: int64.
        added_E: int64, what each expert adds to the gain of one slot.
        knot_J: float64, the most that any expert adds, at the ends of the chords.
    """

    slot_R: Int64s
    fixed_R: Int64s
    omega_R: Int64s
    room_R: Int64s
    base_E: Int64s
    base_R: Int64s
    more_R: Int32s
    fall_R: Int64s
    logcnt_R: Int64s
    added_E: Int64s
    knot_J: Floats


@entry
def new_donors(experts: int, replicas: int) -> Donors:
    """Room for the donors of layers of this size."""
    return Donors(
        np.empty(replicas, np.int64),
        np.empty(replicas, np.int64),
        np.empty(replicas, np.int64),
        np.empty(replicas, np.int64),
        np.empty(experts, np.int64),
        np.empty(replicas, np.int64),
        np.empty(replicas, np.int32),
        np.empty(replicas, np.int64),
        np.empty(replicas, np.int64),
        np.empty(experts, np.int64),
        np.empty(_CHORDS + 1),
    )


@compiled
def best_transfer(layer: Layer, rules: Rules, donors: Donors, terms: Terms, best: Step) -> Step:
    """The transfer with the highest score, if it is above that of `best`."""
    for f in range(len(donors.base_E)):
        fall, more = layer.fall_E[f], np.int64(layer.more_E[f])
        of_f = fall * (fall * layer.square_E[f] - 2 * layer.pull_E[f])
        donors.base_E[f] = -of_f - more * more
    count = _find_donors(layer, rules, donors, terms)
    if count == 0:
        return best
    lowest, width = _draw_chords(layer, donors, count)
    doubled = _lay_out_neighbours(layer, donors)
    for d in range(count):
        slot = donors.slot_R[d]
        e, g = layer.expert_R[slot], layer.gpu_R[slot]
        cost = 1.0 - arrival_cost(layer, rules, e, g)
        if layer.touched_G[g] and _may_come_back(layer, donors, d, cost - 1.0, terms, best):
            best = _best_transfer_of(layer, rules, donors, d, cost - 1.0, terms, best)
            continue
        needed = gain_to_beat(best, cost, terms) - donors.fixed_R[d]
        if needed < _under_chord(donors, d, lowest, width) or needed < _most_beside(
            layer, donors, d, doubled
        ):
            best = _best_transfer_of(layer, rules, donors, d, cost, terms, best)
    return best


@compiled
def _find_donors(layer: Layer, rules: Rules, donors: Donors, terms: Terms) -> int:
    """List the slots of experts with two or more that may give one up; how many."""
    peak = highest(layer.load_G)
    count = 0
    for r in range(len(layer.expert_R)):
        e, g = layer.expert_R[r], layer.gpu_R[r]
        if layer.logcnt_E[e] < 2 or _peak_elsewhere(layer, e, g) > peak:
            continue
        leaving = arrival_cost(layer, rules, e, g)
        if (-leaving if layer.touched_G[g] else 1.0 - leaving) > terms.left:
            continue
        now, rise, here = layer.now_E[e], layer.rise_E[e], np.int64(layer.copies_EG[e, g])
        load = layer.load_G[g]
        loaded = load + rise * (here - 1)
        of_e = 2 * rise * (layer.pull_E[e] - load)
        of_e += rise * rise * (layer.square_E[e] - 2 * here + 1)
        donors.slot_R[count] = r
        donors.fixed_R[count] = now * (2 * loaded - now) - of_e
        donors.omega_R[count] = loaded - now
        donors.room_R[count] = peak - loaded + now
        count += 1
    return count


@compiled
def _draw_chords(layer: Layer, donors: Donors, count: int) -> tuple[int, float]:
    """Fill in `knot_J`; the omega of the first, and how far they are apart."""
    lowest = most = donors.omega_R[0]
    for d in range(1, count):
        lowest = min(lowest, donors.omega_R[d])
        most = max(most, donors.omega_R[d])
    step = max((most - lowest + _CHORDS - 1) // _CHORDS, 1)
    for j in range(_CHORDS + 1):
        _add(layer, donors, lowest + j * step)
        donors.knot_J[j] = float(highest(donors.added_E))
    return lowest, float(step)


@compiled
def _under_chord(donors: Donors, d: int, lowest: int, width: float) -> float:
    """A bound on what any expert adds, leaving out who lies beside whom."""
    position = (donors.omega_R[d] - lowest) / width
    j = min(int(position), _CHORDS - 1)
    left, right = donors.knot_J[j], donors.knot_J[j + 1]
    rounding = (abs(left) + abs(right)) * _ROUNDING
    return left + (right - left) * (position - j) + rounding


@compiled
def _lay_out_neighbours(layer: Layer, donors: Donors) -> bool:
    """Fill in what is known of the expert in each slot; whether one lies twice on a GPU."""
    pairs = np.int64(0)
    for r in range(len(layer.expert_R)):
        f = layer.expert_R[r]
        donors.base_R[r] = donors.base_E[f]
        donors.more_R[r] = layer.more_E[f]
        donors.fall_R[r] = layer.fall_E[f]
        donors.logcnt_R[r] = layer.logcnt_E[f]
        pairs += layer.copies_EG[f, layer.gpu_R[r]]
    return bool(pairs > len(layer.expert_R))


@compiled
def _most_beside(layer: Layer, donors: Donors, d: int, doubled: bool) -> int:
    """A bound on what an expert beside the slot's adds."""
    slot, factor = donors.slot_R[d], np.int64(np.int32(donors.omega_R[d]))
    e, gpu = layer.expert_R[slot], layer.gpu_R[slot]
    slots = len(layer.expert_R) // len(layer.load_G)
    rise, count = layer.rise_E[e], layer.logcnt_E[e]
    best = np.int64(_LEAST)
    r = layer.head_E[e]
    while r != NO_SLOT:
        g = layer.gpu_R[r]
        r = layer.next_R[r]
        if g == gpu:
            continue  # what is there already cannot come
        for s in range(g * slots, (g + 1) * slots):
            # As often as the rarer of both has slots, where none is doubled on a GPU.
            beside = min(count, donors.logcnt_R[s])
            if doubled:
                beside = count * donors.logcnt_R[s]
            added = rise * donors.fall_R[s] * beside - np.int64(donors.more_R[s]) * factor
            best = max(best, donors.base_R[s] + 2 * added)
    return best


@compiled
def _may_come_back(
    layer: Layer, donors: Donors, d: int, cost: float, terms: Terms, best: Step
) -> bool:
    """Whether an expert that was here at the start, and comes back at no cost, is better."""
    slot = donors.slot_R[d]
    e, g = layer.expert_R[slot], layer.gpu_R[slot]
    slots = len(layer.expert_R) // len(layer.load_G)
    needed = gain_to_beat(best, cost, terms) - donors.fixed_R[d]
    better = 0
    for r in range(g * slots, (g + 1) * slots):
        f = layer.start_R[r]
        if layer.copies_EG[f, g] == 0:
            added = donors.base_E[f] - 2 * np.int64(layer.more_E[f]) * donors.omega_R[d]
            added += 2 * layer.rise_E[e] * layer.fall_E[f] * _beside(layer, e, f)
            better += added > needed
    return better > 0


@compiled
def _beside(layer: Layer, e: int, f: int) -> int:
    """Pairs of a slot of e and a slot of f on one GPU."""
    count = np.int64(0)
    r = layer.head_E[e]
    while r != NO_SLOT:
        count += layer.copies_EG[f, layer.gpu_R[r]]
        r = layer.next_R[r]
    return count


@compiled
def _add(layer: Layer, donors: Donors, omega: int) -> None:
    """Fill in `added_E`, without who lies beside whom."""
    # Both factors have 32 bits: one cheap product.
    factor = np.int64(np.int32(omega))
    for f in range(len(donors.base_E)):
        donors.added_E[f] = donors.base_E[f] - 2 * (np.int64(layer.more_E[f]) * factor)


@compiled
def _best_transfer_of(
    layer: Layer, rules: Rules, donors: Donors, d: int, least_cost: float, terms: Terms, best: Step
) -> Step:
    slot, fixed, room = donors.slot_R[d], donors.fixed_R[d], donors.room_R[d]
    e, g = layer.expert_R[slot], layer.gpu_R[slot]
    leaving = arrival_cost(layer, rules, e, g)
    _add(layer, donors, donors.omega_R[d])
    _add_beside(layer, donors, e)
    needed = gain_to_beat(best, least_cost, terms) - fixed
    for first in range(0, len(donors.added_E), _BLOCK):
        block_E = donors.added_E[first : first + _BLOCK]
        if highest(block_E) <= needed:
            continue
        for i in range(len(block_E)):
            f = first + i
            if block_E[i] <= needed or layer.more_E[f] > room or not is_open(layer, f, g):
                continue
            cost = arrival_cost(layer, rules, f, g) - leaving
            score = score_of(fixed + block_E[i], cost, terms)
            if score > best.score:
                best = Step(score, cost, slot, NO_SLOT, f)
                needed = gain_to_beat(best, least_cost, terms) - fixed
    return best


@compiled
def _add_beside(layer: Layer, donors: Donors, e: int) -> None:
    """Add what experts gain that lie beside e, once for each pair of slots."""
    slots = len(layer.expert_R) // len(layer.load_G)
    r = layer.head_E[e]
    while r != NO_SLOT:
        first = layer.gpu_R[r] * slots
        for s in range(first, first + slots):
            f = layer.expert_R[s]
            donors.added_E[f] += 2 * layer.rise_E[e] * layer.fall_E[f]
        r = layer.next_R[r]


@compiled
def _peak_elsewhere(layer: Layer, e: int, gpu: int) -> int:
    """The heaviest that another GPU with a replica of e becomes with one fewer; -1: none."""
    peak = np.int64(-1)
    r = layer.head_E[e]
    while r != NO_SLOT:
        g = layer.gpu_R[r]
        if g != gpu:
            peak = max(peak, layer.load_G[g] + layer.rise_E[e] * layer.copies_EG[e, g])
        r = layer.next_R[r]
    return peak
