"""Top-K / bottom-K swap refinement for one start, like the reference's `refine`.

A swap changes two packs. So the best gain between each of the K heaviest and each of the
K lightest packs is stored, and only the pairs of packs that changed, or that entered the K,
are computed again.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from trimtab_server.solver.backends.cpu.arrays import Int64s, UInt32s
from trimtab_server.solver.backends.cpu.compiled import compiled, entry
from trimtab_server.solver.backends.cpu.start import Start, is_alone, swap
from trimtab_server.solver.backends.cpu.window import (
    NOT_IN,
    Window,
    best_gains,
    extreme_load,
    fill_window,
    highest,
    new_window,
    update,
)


class Pairs(NamedTuple):
    """All pairs of one of the K heaviest and one of the K lightest packs.

    Attributes:
        heavy: the K heaviest.
        light: the K lightest.
        gain_HL: int64 [K, K], best gain of a swap for each pair of cells; see `_best_swap`.
        best_H: int64 [K], the highest gain of each row.
        miss_SK: uint32 [S * K], scratch.
        gain_K: int64 [K], scratch.
    """

    heavy: Window
    light: Window
    gain_HL: Int64s
    best_H: Int64s
    miss_SK: UInt32s
    gain_K: Int64s


@entry
def new_pairs(num_packs: int, slots: int, top_k: int) -> Pairs:
    """Allocate the pairs; K is at most P."""
    return Pairs(
        new_window(num_packs, slots, top_k, True),
        new_window(num_packs, slots, top_k, False),
        np.empty((top_k, top_k), np.int64),
        np.empty(top_k, np.int64),
        np.empty(slots * top_k, np.uint32),
        np.empty(top_k, np.int64),
    )


@compiled
def refine(start: Start, pairs: Pairs, max_iterations: int, tolerance: float) -> tuple[int, int]:
    """Apply the best swap repeatedly, until none gains.

    Args:
        start: changed in place.
        pairs: scratch.
        max_iterations: swaps allowed.
        tolerance: refinement ends when max - min is at most this share of the mean.

    Returns:
        Steps tried and swaps applied.
    """
    heavy, light = pairs.heavy, pairs.light
    total = np.int64(0)
    for p in range(len(start.load_P)):
        total += start.load_P[p]
    fill_window(heavy, start)
    fill_window(light, start)
    for column in range(len(light.stale_K)):
        light.stale_K[column] = False  # since all rows are stale, that would compute pairs twice
    steps = swaps = 0
    while swaps < max_iterations:
        spread = float(extreme_load(heavy) - extreme_load(light))
        if spread * len(start.load_P) / max(total, 1) <= tolerance:
            break
        steps += 1
        _renew_rows(start, pairs)
        _renew_columns(start, pairs)
        a, slot_a, b, slot_b = _best_swap(start, pairs)
        if a == NOT_IN:
            break
        swap(start, a, slot_a, b, slot_b)
        update(heavy, start, a, b)
        update(light, start, a, b)
        swaps += 1
    return steps, swaps


@compiled
def _renew_rows(start: Start, pairs: Pairs) -> None:
    """Compute the gains of stale heavy packs with each light one."""
    heavy, light, gain_HL, best_H, miss_SK, gain_K = pairs
    cells = len(best_H)
    for row in range(cells):
        if not heavy.stale_K[row]:
            continue
        heavy.stale_K[row] = False
        pack = heavy.pack_K[row]
        best_gains(light, start, pack, miss_SK, gain_K)
        for column in range(cells):
            gain_HL[row, column] = gain_K[column]
        best_H[row] = highest(gain_K)


@compiled
def _renew_columns(start: Start, pairs: Pairs) -> None:
    """Compute the gains of stale light packs with each heavy one."""
    heavy, light, gain_HL, best_H, miss_SK, gain_K = pairs
    cells = len(best_H)
    for column in range(cells):
        if not light.stale_K[column]:
            continue
        light.stale_K[column] = False
        pack = light.pack_K[column]
        best_gains(heavy, start, pack, miss_SK, gain_K)
        for row in range(cells):
            old, gain_HL[row, column] = gain_HL[row, column], gain_K[row]
            if gain_K[row] >= best_H[row]:
                best_H[row] = gain_K[row]
            elif old == best_H[row]:
                best_H[row] = highest(gain_HL[row])


@compiled
def _best_swap(start: Start, pairs: Pairs) -> tuple[int, int, int, int]:
    """Pack and slot of the heavy side, then of the light side; NOT_IN if no swap gains.

    Gains are computed without regard to groups. If groups forbid the best swap, the gain of
    its pair is corrected, and then another pair may be the best.
    """
    while True:
        row, column = _best_pair(pairs)
        gain = pairs.gain_HL[row, column]
        if gain <= 0:
            return NOT_IN, NOT_IN, NOT_IN, NOT_IN
        a, b = pairs.heavy.pack_K[row], pairs.light.pack_K[column]
        slot_a, slot_b = _slots_that_gain(start, a, b, gain)
        if slot_a != NOT_IN:
            return a, slot_a, b, slot_b
        pairs.gain_HL[row, column] = _best_allowed_gain(start, a, b)
        pairs.best_H[row] = highest(pairs.gain_HL[row])


@compiled
def _best_pair(pairs: Pairs) -> tuple[int, int]:
    """Cells of the pair that gains most; ties go to the heaviest, then to the lightest pack."""
    heavy, light, gain_HL, best_H, _, _ = pairs
    best_row = 0
    for row in range(1, len(best_H)):
        if best_H[row] > best_H[best_row] or (
            best_H[row] == best_H[best_row] and heavy.rank_K[row] > heavy.rank_K[best_row]
        ):
            best_row = row
    best_column = NOT_IN
    for column in range(len(best_H)):
        if gain_HL[best_row, column] == best_H[best_row] and (
            best_column == NOT_IN or light.rank_K[column] > light.rank_K[best_column]
        ):
            best_column = column
    return best_row, best_column


@compiled
def _slots_that_gain(start: Start, a: int, b: int, target: int) -> tuple[int, int]:
    """The lowest slots whose swap gains `target`."""
    slots = start.item_PS.shape[1]
    gap = start.load_P[a] - start.load_P[b]
    for slot_a in range(slots):
        for slot_b in range(slots):
            delta = start.weight_PS[a, slot_a] - start.weight_PS[b, slot_b]
            if delta * (gap - delta) == target and _is_allowed(start, a, slot_a, b, slot_b):
                return slot_a, slot_b
    return NOT_IN, NOT_IN


@compiled
def _best_allowed_gain(start: Start, a: int, b: int) -> int:
    slots = start.item_PS.shape[1]
    gap = start.load_P[a] - start.load_P[b]
    best = np.int64(0)
    for slot_a in range(slots):
        for slot_b in range(slots):
            delta = start.weight_PS[a, slot_a] - start.weight_PS[b, slot_b]
            gain = delta * (gap - delta)
            if gain > best and _is_allowed(start, a, slot_a, b, slot_b):
                best = gain
    return best


@compiled
def _is_allowed(start: Start, a: int, slot_a: int, b: int, slot_b: int) -> bool:
    """Whether neither item of a swap would meet its group."""
    return not _meets(start, start.item_PS[a, slot_a], b, slot_b) and not _meets(
        start, start.item_PS[b, slot_b], a, slot_a
    )


@compiled
def _meets(start: Start, item: int, pack: int, freed_slot: int) -> bool:
    """Whether a slot of the pack other than the freed one holds the item's group."""
    if is_alone(start, item):
        return False
    group = start.group_I[item]
    for s in range(start.item_PS.shape[1]):
        if s != freed_slot and start.group_I[start.item_PS[pack, s]] == group:
            return True
    return False
