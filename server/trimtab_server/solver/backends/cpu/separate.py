"""Separates items of a group for one start, as the reference does it: see its `separate`."""

from __future__ import annotations

import numpy as np

from trimtab_server.solver.backends.cpu.compiled import compiled
from trimtab_server.solver.backends.cpu.start import Start, held, swap

_NONE = -1


@compiled
def separate(start: Start) -> None:
    """Swap items until no pack holds a group twice that need not.

    Slow and simple: a start that needs it needs a swap or two.
    """
    slots = start.item_PS.shape[1]
    u = 0
    while u < start.item_PS.size:
        a = u // slots
        v = _NONE
        if held(start, a, start.group_I[start.item_PS[a, u % slots]]) > 1:
            v = _partner(start, u)
        if v == _NONE:
            u += 1
        else:
            swap(start, a, u % slots, v // slots, v % slots)
            u = 0


@compiled
def _partner(start: Start, u: int) -> int:
    """The slot to swap slot u with, or _NONE: most gain, then the lowest."""
    packs, slots = start.item_PS.shape
    a = u // slots
    item_u = start.item_PS[a, u % slots]
    group_u = start.group_I[item_u]
    best, found = np.int64(0), _NONE
    for b in range(packs):
        if b == a:
            continue
        u_meets = held(start, b, group_u) > 0
        gap = np.int64(start.load_P[a]) - np.int64(start.load_P[b])
        for s in range(slots):
            item_v = start.item_PS[b, s]
            group_v = start.group_I[item_v]
            # An item of u's own group stays where it is: it would be doubled in turn.
            if group_v == group_u:
                continue
            v_doubled = held(start, b, group_v) > 1
            v_meets = held(start, a, group_v) > 0
            if 1 + int(v_doubled) - int(u_meets) - int(v_meets) <= 0:
                continue
            delta = np.int64(start.weight_I[item_u]) - np.int64(start.weight_I[item_v])
            gain = delta * (gap - delta)
            if found == _NONE or gain > best:
                best, found = gain, b * slots + s
    return found
