"""The packing of one start, while it changes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from trimtab_server.solver.backends.cpu.arrays import Int32s
from trimtab_server.solver.backends.cpu.compiled import compiled, entry


class Start(NamedTuple):
    """The items of a start and the packs that they are in. P packs of S slots, n items.

    Attributes:
        item_PS: int32, items of each pack.
        weight_PS: int32, their weights; the sum of all is below 2**30.
        load_P: int32, weight of each pack.
        pack_I: int32 [n], the pack of each item.
        weight_I: int32 [n].
        group_I: int32 [n] in [0, n).
        first_I: int32 [n + 1], the index of each group's first item in `member_I`.
        member_I: int32 [n], items group by group, ascending.
    """

    item_PS: Int32s
    weight_PS: Int32s
    load_P: Int32s
    pack_I: Int32s
    weight_I: Int32s
    group_I: Int32s
    first_I: Int32s
    member_I: Int32s


@entry
def new_start(num_items: int, num_packs: int) -> Start:
    """Allocate one start."""
    slots = num_items // num_packs
    return Start(
        np.empty((num_packs, slots), np.int32),
        np.empty((num_packs, slots), np.int32),
        np.empty(num_packs, np.int32),
        np.empty(num_items, np.int32),
        np.empty(num_items, np.int32),
        np.empty(num_items, np.int32),
        np.empty(num_items + 1, np.int32),
        np.empty(num_items, np.int32),
    )


@compiled
def list_groups(start: Start) -> None:
    """Fill in `first_I` and `member_I` from `group_I`."""
    group_I, first_I = start.group_I, start.first_I
    first_I[:] = 0
    for i in range(len(group_I)):
        first_I[group_I[i] + 1] += 1
    for g in range(len(group_I)):
        first_I[g + 1] += first_I[g]
    for i in range(len(group_I)):
        start.member_I[first_I[group_I[i]]] = i
        first_I[group_I[i]] += 1
    for g in range(len(group_I), 0, -1):
        first_I[g] = first_I[g - 1]
    first_I[0] = 0


@compiled
def is_alone(start: Start, item: int) -> bool:
    """Whether an item is the only one of its group."""
    group = start.group_I[item]
    return start.first_I[group + 1] - start.first_I[group] == 1


@compiled
def count_in_pack(start: Start, pack: int, group: int) -> int:
    """How many items of a group a pack holds."""
    count = 0
    for s in range(start.item_PS.shape[1]):
        count += start.group_I[start.item_PS[pack, s]] == group
    return count


@compiled
def swap(start: Start, a: int, slot_a: int, b: int, slot_b: int) -> None:
    """Swap the items in two slots of two packs."""
    u, v = start.item_PS[a, slot_a], start.item_PS[b, slot_b]
    delta = start.weight_I[u] - start.weight_I[v]
    start.item_PS[a, slot_a], start.item_PS[b, slot_b] = v, u
    start.weight_PS[a, slot_a] -= delta
    start.weight_PS[b, slot_b] += delta
    start.pack_I[u], start.pack_I[v] = b, a
    start.load_P[a] -= delta
    start.load_P[b] += delta
