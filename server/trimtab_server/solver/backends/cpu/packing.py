"""`balanced_packing` over rows and restarts: its three stages together."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from trimtab_server.solver.backends.cpu.arrays import Floats, Int32s, Int64s
from trimtab_server.solver.backends.cpu.compiled import entry
from trimtab_server.solver.backends.cpu.lpt import lpt, new_dealing
from trimtab_server.solver.backends.cpu.noise import key_factors, sort_keys
from trimtab_server.solver.backends.cpu.refine import new_pairs, refine
from trimtab_server.solver.backends.cpu.rows import quantise_rows
from trimtab_server.solver.backends.cpu.separate import separate
from trimtab_server.solver.backends.cpu.start import list_groups, new_start
from trimtab_server.solver.backends.cpu.threads import for_parts
from trimtab_server.solver.settings import Settings

MAX_ITEMS = 1 << 20
"""The largest number of items, and of packs: a sort key has 20 bits for their numbers."""

_NO_LIMIT = 1 << 62


class Packed(NamedTuple):
    """The best start of each row, and the work of all starts.

    Attributes:
        item_XR: int32 [X, n], items by pack, then by slot in the pack.
        steps: refinement steps, summed over rows and restarts.
        swaps: swaps applied, summed over rows and restarts.
    """

    item_XR: Int32s
    steps: int
    swaps: int


def pack_amounts(
    amount_XI: Floats, num_packs: int, group_XI: Int32s | None, settings: Settings
) -> Packed:
    """`pack_rows` for weights that are not integers yet, float64 [X, n]."""
    rows, items = amount_XI.shape
    weight_XI = np.empty((rows, items), np.int32)
    if group_XI is None:
        group_XI = np.tile(np.arange(items, dtype=np.int32), (rows, 1))

    def quantise(first: int, end: int) -> None:
        quantise_rows(amount_XI, first, end, weight_XI)

    return pack_rows(weight_XI, group_XI, num_packs, settings, quantise)


def pack_rows(
    weight_XI: Int32s,
    group_XI: Int32s,
    num_packs: int,
    settings: Settings,
    fill_rows: Callable[[int, int], None],
) -> Packed:
    """Pack each row from each start, and keep the best start of each row.

    Args:
        weight_XI: int32 [X, n], with the sum of each row below 2**30; see `fill_rows`.
        group_XI: int32 [X, n] in [0, n); see `fill_rows`.
        num_packs: P; it divides n.
        settings: see `balanced_packing`.
        fill_rows: fills in rows `first` to `end` of these; called before they are read, and
            possibly on two threads at once for the same row.
    """
    (rows, items), starts = weight_XI.shape, settings.restarts
    top_k = 1 if settings.objective == "range" else min(settings.top_k, num_packs)
    limit = _NO_LIMIT if settings.max_iterations is None else settings.max_iterations
    seed = np.uint64(settings.seed % (1 << 64))
    key_YI = np.empty((rows * starts, items), np.int64)
    item_YI = np.empty((rows * starts, items), np.int32)
    # For each start: highest load of a pack, sum of squares, steps, swaps.
    result_Y4 = np.empty((rows * starts, 4), np.int64)
    how, written = (top_k, limit, float(settings.tolerance)), (key_YI, item_YI, result_Y4)

    def work(first: int, end: int) -> None:
        fill_rows(first // starts, (end - 1) // starts + 1)
        _fill_keys(weight_XI, starts, seed, first, end, key_YI)
        # Sorted by NumPy, whose sort uses vector instructions; Numba's does not.
        key_YI[first:end].sort(axis=1)
        _pack_starts(weight_XI, group_XI, starts, num_packs, *how, first, end, *written)

    for_parts(rows * starts, work, nanoseconds=_start_ns(items, settings))
    steps, swaps = result_Y4[:, 2:].sum(0).tolist()
    if starts == 1:
        return Packed(item_YI, steps, swaps)
    return Packed(item_YI[_best_starts(result_Y4, starts)], steps, swaps)


def _start_ns(items: int, settings: Settings) -> float:
    """About how long a start takes, including replication and keys, in nanoseconds."""
    return (60.0 if settings.max_iterations is not None else 130.0) * items


@entry
def _fill_keys(
    weight_XI: Int32s, starts: int, seed: np.uint64, first: int, end: int, key_YI: Int64s
) -> None:
    factor_TI = key_factors(seed, starts, weight_XI.shape[1])
    for y in range(first, end):
        sort_keys(weight_XI[y // starts], factor_TI[y % starts], key_YI[y])


@entry
def _pack_starts(
    weight_XI: Int32s,
    group_XI: Int32s,
    starts: int,
    num_packs: int,
    top_k: int,
    max_iterations: int,
    tolerance: float,
    first: int,
    end: int,
    key_YI: Int64s,
    item_YI: Int32s,
    result_Y4: Int64s,
) -> None:
    """Pack starts `first` to `end`, and write their rows of `item_YI` and `result_Y4`."""
    items = key_YI.shape[1]
    start, dealing = new_start(items, num_packs), new_dealing(items, num_packs)
    pairs = new_pairs(num_packs, items // num_packs, top_k)
    for y in range(first, end):
        if y == first or y % starts == 0:
            start.weight_I[:] = weight_XI[y // starts]
            start.group_I[:] = group_XI[y // starts]
            list_groups(start)
        if lpt(start, dealing, key_YI[y]):
            separate(start)
        steps, swaps = refine(start, pairs, max_iterations, tolerance)
        peak = squares = np.int64(0)
        for p in range(num_packs):
            load = np.int64(start.load_P[p])
            peak = max(peak, load)
            squares += load * load
        result_Y4[y] = (peak, squares, steps, swaps)
        item_YI[y] = start.item_PS.ravel()


@entry
def _best_starts(result_Y4: Int64s, starts: int) -> Int64s:
    """The start of each row with the lowest peak, then sum of squares, then index; [X]."""
    best_X = np.empty(len(result_Y4) // starts, np.int64)
    for x in range(len(best_X)):
        best = x * starts
        for y in range(best + 1, best + starts):
            peak, squares = result_Y4[y, 0], result_Y4[y, 1]
            min_peak, min_squares = result_Y4[best, 0], result_Y4[best, 1]
            if peak < min_peak or (peak == min_peak and squares < min_squares):
                best = y
        best_X[x] = best
    return best_X
