"""Sort keys of the restarts, the same as in the reference's `noise`."""

from __future__ import annotations

import numpy as np

from trimtab_server.solver.backends.cpu.arrays import Int32s, Int64s
from trimtab_server.solver.backends.cpu.compiled import compiled, entry
from trimtab_server.solver.backends.reference.noise import AMPLITUDE, UNIT

ITEM_BITS = 20
"""Low bits of a sort key that hold the item; the key takes 43 more."""

ITEM_MASK = (1 << ITEM_BITS) - 1

# Keys are subtracted from this, since NumPy sorts ascending only.
_HIGHEST = (1 << 43) - 1
_SPAN = np.uint32(2 * AMPLITUDE + 1)


@entry
def key_factors(seed: np.uint64, starts: int, num_items: int) -> Int64s:
    """Factors of the sort keys, int64 [starts, n]; start 0 has no noise."""
    factor_TI = np.full((starts, num_items), UNIT)
    seed_hash = _mix(np.uint32(_mix(np.uint32(seed)) + np.uint32(seed >> np.uint64(32))))
    for t in range(1, starts):
        start_hash = _mix(np.uint32(seed_hash + np.uint32(t)))
        for i in range(num_items):
            item_hash = _mix(np.uint32(start_hash + np.uint32(i)))
            factor_TI[t, i] += np.int64(item_hash % _SPAN) - AMPLITUDE
    return factor_TI


@compiled
def sort_keys(weight_I: Int32s, factor_I: Int64s, out_I: Int64s) -> None:
    """Write numbers whose ascending order is that of items by descending key, then by index.

    Args:
        weight_I: int32 [n], with a sum below 2**30.
        factor_I: int64 [n], see `key_factors`.
        out_I: int64 [n], written.
    """
    for i in range(len(weight_I)):
        out_I[i] = (_HIGHEST - np.int64(weight_I[i]) * factor_I[i]) << ITEM_BITS | i


@compiled
def _mix(x: np.uint32) -> np.uint32:
    """The 32-bit finaliser "lowbias32"."""
    x ^= x >> np.uint32(16)
    x = np.uint32(x * np.uint32(0x7FEB352D))
    x ^= x >> np.uint32(15)
    x = np.uint32(x * np.uint32(0x846CA68B))
    return np.uint32(x ^ (x >> np.uint32(16)))
