"""LPT with capacity for one start, like the reference's `lpt`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from trimtab_server.solver.backends.cpu.arrays import Int32s, Int64s
from trimtab_server.solver.backends.cpu.compiled import compiled, entry
from trimtab_server.solver.backends.cpu.noise import ITEM_MASK
from trimtab_server.solver.backends.cpu.start import Start, is_alone

# An entry of the tree has the number of a pack in the low 20 bits, its load in the 30 above them,
# and then one bit for a conflict and one for a full pack.
_PACK_BITS = 20
_PACK_MASK = (1 << _PACK_BITS) - 1
_CONFLICT = 1 << 55
_FULL = 1 << 60


class Dealing(NamedTuple):
    """Scratch memory for dealing items.

    Attributes:
        tree_2P: int64, a tournament tree that finds the lightest pack: entry i is the lesser
            of entries 2 i and 2 i + 1, and the last P entries are the packs. An entry combines
            load and number of a pack, so that ties go to the lowest number; a high bit marks
            a pack that is full or in conflict.
        fill_P: int32, items in each pack.
        holder_I: int32 [n], packs that hold a group, at the indices of its items in
            `Start.member_I`.
        holders_I: int32 [n], how many packs hold each group.
    """

    tree_2P: Int64s
    fill_P: Int32s
    holder_I: Int32s
    holders_I: Int32s


@entry
def new_dealing(num_items: int, num_packs: int) -> Dealing:
    """Allocate memory for dealing n items into P packs."""
    return Dealing(
        np.empty(2 * num_packs, np.int64),
        np.empty(num_packs, np.int32),
        np.empty(num_items, np.int32),
        np.empty(num_items, np.int32),
    )


@compiled
def lpt(start: Start, dealing: Dealing, sorted_I: Int64s) -> bool:
    """Deal items into packs.

    Args:
        start: items, weights and groups are read, packs are written.
        dealing: scratch.
        sorted_I: int64 [n], sort keys, ascending; see `sort_keys`.

    Returns:
        Whether an item had to go into a pack that holds another item of its group.
    """
    packs, slots = start.item_PS.shape
    tree_2P, fill_P, holder_I, holders_I = dealing
    for p in range(packs):
        tree_2P[packs + p] = p
        fill_P[p] = 0
    for i in range(packs - 1, 0, -1):
        tree_2P[i] = min(tree_2P[2 * i], tree_2P[2 * i + 1])
    for g in range(len(holders_I)):
        holders_I[g] = 0
    doubled = False
    for i in range(len(sorted_I)):
        item = sorted_I[i] & ITEM_MASK
        group = start.group_I[item]
        first = start.first_I[group]
        last = first + holders_I[group]
        for h in range(first, last):
            _add(tree_2P, holder_I[h], _CONFLICT)
        lightest = tree_2P[1]
        for h in range(first, last):
            _add(tree_2P, holder_I[h], -_CONFLICT)
        pack = lightest & _PACK_MASK
        if lightest >= _CONFLICT:
            doubled = True
        elif not is_alone(start, item):
            holder_I[last] = pack
            holders_I[group] += 1
        weight = start.weight_I[item]
        start.item_PS[pack, fill_P[pack]] = item
        start.weight_PS[pack, fill_P[pack]] = weight
        start.pack_I[item] = pack
        fill_P[pack] += 1
        bar = _FULL if fill_P[pack] == slots else 0
        _add(tree_2P, pack, (np.int64(weight) << _PACK_BITS) + bar)
    for p in range(packs):
        start.load_P[p] = (tree_2P[packs + p] - _FULL) >> _PACK_BITS
    return doubled


@compiled
def _add(tree_2P: Int64s, pack: int, amount: int) -> None:
    i = len(tree_2P) // 2 + pack
    tree_2P[i] += amount
    while i > 1:
        i >>= 1
        tree_2P[i] = min(tree_2P[2 * i], tree_2P[2 * i + 1])
