"""LPT with capacity: items go by descending key to the lightest pack with room.

Longest processing time first is from Graham, "Bounds on multiprocessing timing anomalies"
(1969); here packs have equally many items.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Above all loads, so that a full pack costs most, and then one that holds the item's group.
_FULL = 1 << 50
_CONFLICT = 1 << 40


def lpt(
    weight_YI: Tensor, key_YI: Tensor, num_packs: int, group_YI: Tensor | None = None
) -> Tensor:
    """Deal the items of each row into packs, and return the items of each, int64 [Y, P, S].

    A pack without the item's group is preferred to a lighter one that has it.
    Ties go to the lowest item and the lowest pack.

    Args:
        weight_YI: int64 [Y, n], with the sum of each row below 2**30.
        key_YI: int64 [Y, n], the sort keys.
        num_packs: P; it divides n.
        group_YI: int64 [Y, n] in [0, n); None without groups.
    """
    rows, items = weight_YI.shape
    slots = items // num_packs
    order_YI = torch.argsort(key_YI, dim=1, descending=True, stable=True)
    load_YP = weight_YI.new_zeros(rows, num_packs)
    fill_YP = weight_YI.new_zeros(rows, num_packs)
    members_YPS = weight_YI.new_zeros(rows, num_packs, slots)
    row_Y = torch.arange(rows, device=weight_YI.device)
    holds_YIP = None
    if group_YI is not None:
        holds_YIP = torch.zeros(rows, items, num_packs, dtype=torch.bool, device=row_Y.device)
    for item_Y in order_YI.unbind(1):
        cost_YP = load_YP + torch.where(fill_YP == slots, _FULL, 0)
        if holds_YIP is not None and group_YI is not None:
            group_Y = group_YI[row_Y, item_Y]
            cost_YP += torch.where(holds_YIP[row_Y, group_Y], _CONFLICT, 0)
        pack_Y = cost_YP.argmin(1)
        if holds_YIP is not None:
            holds_YIP[row_Y, group_Y, pack_Y] = True
        members_YPS[row_Y, pack_Y, fill_YP[row_Y, pack_Y]] = item_Y
        load_YP[row_Y, pack_Y] += weight_YI[row_Y, item_Y]
        fill_YP[row_Y, pack_Y] += 1
    return members_YPS
