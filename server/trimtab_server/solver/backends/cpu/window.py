"""The K heaviest, or the K lightest, packs of a start, updated as packs change.

A pack keeps its cell while it stays among the K; cells have no order. The values of all K are
stored side by side, slot by slot, so that one pack can be compared with all of them in a loop
that the compiler vectorises.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from trimtab_server.solver.backends.cpu.arrays import Bools, Int32s, Int64s, UInt32s
from trimtab_server.solver.backends.cpu.compiled import compiled, entry
from trimtab_server.solver.backends.cpu.start import Start

# A rank has the number of a pack in the low bits, and its load, which is below 2**30, above them.
_PACK_BITS = 20
_PACK_MASK = (1 << _PACK_BITS) - 1
_MAX_LOAD = 1 << 30
_MEMBER = -1
NOT_IN = -1
_FAR = np.uint32(0xFFFFFFFF)


class Window(NamedTuple):
    """K packs of one side.

    The higher the rank of a pack, the more it belongs to this side: by load, and among
    equal loads by the lowest number.

    Attributes:
        heavy: whether this is the side of the heavy packs.
        pack_K: int32, the pack in each cell.
        cell_P: int32, the cell of each pack, or NOT_IN.
        rank_K: int64, the rank of the pack in each cell.
        rank_P: int64, the ranks of the packs outside; negative for those inside.
        lean_SK: int32 [S * K], 2 w - W for each weight w in a pack of load W; first those
            of slot 0 in all cells, then those of slot 1.
        load_K: int32, the load of the pack in each cell.
        stale_K: whether the pack in a cell was replaced or changed.
    """

    heavy: bool
    pack_K: Int32s
    cell_P: Int32s
    rank_K: Int64s
    rank_P: Int64s
    lean_SK: Int32s
    load_K: Int32s
    stale_K: Bools


@entry
def new_window(num_packs: int, slots: int, top_k: int, heavy: bool) -> Window:
    """Allocate the window for the K heaviest or lightest of P packs of S slots."""
    return Window(
        heavy,
        np.empty(top_k, np.int32),
        np.empty(num_packs, np.int32),
        np.empty(top_k, np.int64),
        np.empty(num_packs, np.int64),
        np.empty(slots * top_k, np.int32),
        np.empty(top_k, np.int32),
        np.empty(top_k, np.bool_),
    )


@compiled
def fill_window(window: Window, start: Start) -> None:
    """Enter the K packs that belong to the window; all are stale."""
    for p in range(len(window.cell_P)):
        window.cell_P[p] = NOT_IN
        window.rank_P[p] = _rank(window, start, p)
    for cell in range(len(window.pack_K)):
        _enter(window, start, cell, highest(window.rank_P))


@compiled
def update(window: Window, start: Start, a: int, b: int) -> None:
    """Update the window after packs a and b changed: packs may enter and leave it."""
    for pack in (a, b):
        cell = window.cell_P[pack]
        if cell == NOT_IN:
            window.rank_P[pack] = _rank(window, start, pack)
        else:
            _write(window, start, cell, pack)
    if len(window.pack_K) == len(window.cell_P):
        return
    while True:
        first = highest(window.rank_P)
        last = np.int64(_MAX_LOAD) << (_PACK_BITS + 1)
        for k in range(len(window.rank_K)):
            last = min(last, window.rank_K[k])
        if first < last:
            return
        cell = 0
        while window.rank_K[cell] != last:
            cell += 1
        leaver = window.pack_K[cell]
        window.cell_P[leaver] = NOT_IN
        window.rank_P[leaver] = last
        _enter(window, start, cell, first)


@compiled
def extreme_load(window: Window) -> int:
    """The load of the heaviest, or of the lightest, pack."""
    load = highest(window.rank_K) >> _PACK_BITS
    return load if window.heavy else _MAX_LOAD - load


@compiled
def best_gains(window: Window, start: Start, pack: int, miss_SK: UInt32s, gain_K: Int64s) -> None:
    """Write the best gain of a swap between a pack and each of the K; 0 if none gains.

    If d of load leaves the heavier pack and g is the gap between both packs, a swap gains
    d (g - d) = (g^2 - (2 d - g)^2) / 4. So the best swap is the one with d closest to g / 2,
    and 2 d - g is the difference of the two items' 2 w - W: at most the load of both packs.
    """
    cells, load = len(gain_K), start.load_P[pack]
    for j in range(len(miss_SK)):
        miss_SK[j] = _FAR
    for s in range(start.weight_PS.shape[1]):
        lean = np.int32(2 * start.weight_PS[pack, s] - load)
        for j in range(len(miss_SK)):
            miss = np.uint32(abs(np.int32(lean - window.lean_SK[j])))
            miss_SK[j] = min(miss_SK[j], miss)
    for first in range(cells, len(miss_SK), cells):
        for k in range(cells):
            miss_SK[k] = min(miss_SK[k], miss_SK[first + k])
    for k in range(cells):
        gap = np.uint32(abs(np.int32(load - window.load_K[k])))
        miss = min(miss_SK[k], gap)
        # The factors have at most 31 bits, so the product is cheap.
        gain_K[k] = (np.int64(np.int32(gap - miss)) * np.int64(np.int32(gap + miss))) >> 2


@compiled
def highest(numbers: npt.NDArray[Any]) -> Any:
    """The highest of some numbers."""
    # Indexed, since Numba's iteration over an array has a stride unknown to the compiler.
    best = numbers[0]
    for i in range(1, len(numbers)):
        best = max(best, numbers[i])
    return best


@compiled
def _rank(window: Window, start: Start, pack: int) -> int:
    load = np.int64(start.load_P[pack])
    belongs = load if window.heavy else _MAX_LOAD - load
    return belongs << _PACK_BITS | (_PACK_MASK - pack)


@compiled
def _enter(window: Window, start: Start, cell: int, rank: int) -> None:
    pack = _PACK_MASK - (rank & _PACK_MASK)
    window.pack_K[cell] = pack
    window.cell_P[pack] = cell
    window.rank_P[pack] = _MEMBER
    _write(window, start, cell, pack)


@compiled
def _write(window: Window, start: Start, cell: int, pack: int) -> None:
    window.rank_K[cell] = _rank(window, start, pack)
    window.stale_K[cell] = True
    cells, load = len(window.pack_K), start.load_P[pack]
    window.load_K[cell] = load
    for s in range(start.weight_PS.shape[1]):
        window.lean_SK[s * cells + cell] = np.int32(2 * start.weight_PS[pack, s] - load)
