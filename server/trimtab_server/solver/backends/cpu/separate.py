"""Separates items of one group in one start, like the reference's `separate`."""

from __future__ import annotations

import numpy as np

from trimtab_server.solver.backends.cpu.compiled import compiled
from trimtab_server.solver.backends.cpu.start import Start, count_in_pack, swap

_NONE = -1


@compiled
def separate(start: Start) -> None:
    """Swap items until groups share packs only where they have to.

    This is slow and simple, since few starts need it, and those only a swap or two.
    """
    slots = start.item_PS.shape[1]
    u = 0
    while u < start.item_PS.size:
        a = u // slots
        v = _NONE
        if count_in_pack(start, a, start.group_I[start.item_PS[a, u % slots]]) > 1:
            v = _partner(start, u)
        if v == _NONE:
            u += 1
        else:
            swap(start, a, u % slots, v // slots, v % slots)
            u = 0


@compiled
def _partner(start: Start, u: int) -> int:
    """The slot to swap slot u with: the highest gain, then the lowest slot; _NONE without one."""
    packs, slots = start.item_PS.shape
    a = u // slots
    item_u = start.item_PS[a, u % slots]
    group_u = start.group_I[item_u]
    best, found = np.int64(0), _NONE
    for b in range(packs):
        if b == a:
            continue
        u_meets = count_in_pack(start, b, group_u) > 0
        gap = np.int64(start.load_P[a]) - np.int64(start.load_P[b])
        for s in range(slots):
            item_v = start.item_PS[b, s]
            group_v = start.group_I[item_v]
            # Swapping u with an item of its own group would leave the group doubled.
            if group_v == group_u:
                continue
            v_doubled = count_in_pack(start, b, group_v) > 1
            v_meets = count_in_pack(start, a, group_v) > 0
            if 1 + int(v_doubled) - int(u_meets) - int(v_meets) <= 0:
                continue
            delta = np.int64(start.weight_I[item_u]) - np.int64(start.weight_I[item_v])
            gain = delta * (gap - delta)
            if found == _NONE or gain > best:
                best, found = gain, b * slots + s
    return found
