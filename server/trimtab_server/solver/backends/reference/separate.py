"""Separates items of one group that LPT left together in a pack."""

from __future__ import annotations

import torch
from torch import Tensor


def separate(members_YPS: Tensor, weight_YI: Tensor, group_YI: Tensor) -> Tensor:
    """Swap items until groups share packs only where they have to; returns int64 [Y, P, S].

    LPT is greedy: if only packs that hold an item's group have room, it must double the group
    in one of them, even if another deal would avoid that. Each step takes the first doubled
    item u, in pack A, for which there is a v in another pack B such that swapping the two
    lowers the number of doubled items. Of all such v, it takes the one whose swap raises the
    sum of squared pack weights least.

    If some B lacks u's group, such a v exists: either some v of B is doubled there, or the S
    different groups of B cannot all be among the at most S - 2 other groups of A. So at the
    end, every group of at most P items is separated.
    """
    members_YPS = members_YPS.clone()
    group_YPS = group_YI.gather(1, members_YPS.flatten(1)).view_as(members_YPS)
    for row in torch.nonzero(_doubled(group_YPS).flatten(1).any(1)).flatten().tolist():
        _separate_row(members_YPS[row], weight_YI[row], group_YI[row])
    return members_YPS


def _separate_row(members_PS: Tensor, weight_I: Tensor, group_I: Tensor) -> None:
    """Separate the groups of one row, in place. Few rows need it, and those only a swap or two."""
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
    """The slot to swap slot u with; None if there is none."""
    slots = members_PS.shape[1]
    group_PS, weight_PS = group_I[members_PS], weight_I[members_PS]
    group, weight = group_PS.flatten(), weight_PS.flatten()
    pack = torch.arange(len(group), device=group.device) // slots
    u_meets = (group_PS == group[u]).any(1)[pack]
    v_meets = torch.isin(group, group_PS[u // slots])
    fewer = 1 + doubled.int() - u_meets.int() - v_meets.int()
    # Swapping u with an item of its own group would leave the group doubled.
    allowed = (fewer > 0) & (group != group[u]) & (pack != u // slots)
    if not bool(allowed.any()):
        return None
    load = weight_PS.sum(1)[pack]
    delta = weight[u] - weight
    gain = delta * (load[u] - load - delta)
    return int(torch.where(allowed, gain, torch.iinfo(gain.dtype).min).argmax())


def _doubled(group: Tensor) -> Tensor:
    """Whether each slot holds a group that its pack holds more than once."""
    ordered, order = group.sort(dim=-1, stable=True)
    repeats = ordered[..., 1:] == ordered[..., :-1]
    edge = repeats.new_zeros(*repeats.shape[:-1], 1)
    either = torch.cat([repeats, edge], -1) | torch.cat([edge, repeats], -1)
    return torch.zeros_like(either).scatter_(-1, order, either)
