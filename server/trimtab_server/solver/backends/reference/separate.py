"""Separates items of one group that the packing left together in a pack."""

from __future__ import annotations

import torch
from torch import Tensor


def separate(members_YPS: Tensor, weight_YI: Tensor, group_YI: Tensor) -> Tensor:
    """Swap items until no pack holds a group twice that need not, int64 [Y, P, S].

    LPT is greedy: when only packs that hold an item's group have room, it has
    to double the group there, though another deal would not. The first such item
    u that can be, in A, is swapped with the v of some B for which the number of
    doubled items falls; of those, the swap that raises the sum of squared pack
    weights least.

    If some B lacks u's group, one exists: either some v of B is doubled there, or
    B's S different groups cannot all be among the at most S - 2 others of A. So
    it ends with every group of at most P items separated.
    """
    members_YPS = members_YPS.clone()
    group_YPS = group_YI.gather(1, members_YPS.flatten(1)).view_as(members_YPS)
    for row in torch.nonzero(_doubled(group_YPS).flatten(1).any(1)).flatten().tolist():
        _separate_row(members_YPS[row], weight_YI[row], group_YI[row])
    return members_YPS


def _separate_row(members_PS: Tensor, weight_I: Tensor, group_I: Tensor) -> None:
    """In place. One row at a time: few rows need it, and those only a swap or two."""
    flat = members_PS.view(-1)
    while True:
        doubled = _doubled(group_I[members_PS]).flatten()
        for u in torch.nonzero(doubled).flatten().tolist():
            v = _partner(u, members_PS, weight_I, group_I, doubled)
            if v is not None:
                flat[u], flat[v] = int(flat[v]), int(flat[u])
                break
        else:
            return


def _partner(
    u: int, members_PS: Tensor, weight_I: Tensor, group_I: Tensor, doubled: Tensor
) -> int | None:
    """The slot to swap slot u with, if any."""
    slots = members_PS.shape[1]
    group_PS, weight_PS = group_I[members_PS], weight_I[members_PS]
    group, weight = group_PS.flatten(), weight_PS.flatten()
    pack = torch.arange(len(group), device=group.device) // slots
    u_meets = (group_PS == group[u]).any(1)[pack]
    v_meets = torch.isin(group, group_PS[u // slots])
    fewer = 1 + doubled.int() - u_meets.int() - v_meets.int()
    # An item of u's own group stays where it is: it would be doubled in turn.
    allowed = (fewer > 0) & (group != group[u]) & (pack != u // slots)
    if not bool(allowed.any()):
        return None
    load = weight_PS.sum(1)[pack]
    delta = weight[u] - weight
    gain = delta * (load[u] - load - delta)
    return int(torch.where(allowed, gain, torch.iinfo(gain.dtype).min).argmax())


def _doubled(group: Tensor) -> Tensor:
    """Which slots hold a group that their pack holds more than once."""
    ordered, order = group.sort(dim=-1, stable=True)
    repeats = ordered[..., 1:] == ordered[..., :-1]
    edge = repeats.new_zeros(*repeats.shape[:-1], 1)
    either = torch.cat([repeats, edge], -1) | torch.cat([edge, repeats], -1)
    return torch.zeros_like(either).scatter_(-1, order, either)
