"""Separates items of one group that the packing left together in a pack."""

from __future__ import annotations

import torch
from torch import Tensor


def separate(members_YPS: Tensor, weight_YI: Tensor, group_YI: Tensor) -> Tensor:
    """Swap items until no pack holds a group twice that need not, int64 [Y, P, S].

    LPT is greedy: when only packs that hold an item's group have room, it has
    to double the group there, though another deal would not. Such an item u in
    A is swapped with the v in some B for which the number of doubled items falls;
    of those, the swap that raises the sum of squared pack weights least.

    One always exists: if B lacks u's group, either some v of B is doubled
    there, or B's S different groups cannot all be among the at most S - 2
    others of A. So it ends, with every group of at most P items separated.
    """
    members_YPS = members_YPS.clone()
    for row in torch.nonzero(_doubled(_grouped(members_YPS, group_YI)).flatten(1).any(1)).flatten():
        _separate_row(members_YPS[row], weight_YI[row], group_YI[row])
    return members_YPS


def _separate_row(members_PS: Tensor, weight_I: Tensor, group_I: Tensor) -> None:
    """In place. One row at a time: few rows need it, and those only a swap or two."""
    slots = members_PS.shape[1]
    while True:
        group_PS, weight_PS = group_I[members_PS], weight_I[members_PS]
        doubled_PS = _doubled(group_PS)
        # For each slot u and slot v: how often u's group lies in v's pack.
        in_pack = (group_PS.flatten()[:, None, None] == group_PS).sum(-1)
        in_pack = in_pack.repeat_interleave(slots, dim=1)
        same = group_PS.flatten()[:, None] == group_PS.flatten()
        meets = (in_pack > 0) & ~same
        leaves = doubled_PS.flatten().int()
        fewer = leaves[:, None] + leaves - meets.int() - meets.T.int()
        pack = torch.arange(members_PS.numel(), device=members_PS.device) // slots
        allowed = doubled_PS.flatten()[:, None] & (fewer > 0) & ~same & (pack[:, None] != pack)
        if not bool(allowed.any()):
            return
        load = weight_PS.sum(1)[pack]
        delta = weight_PS.flatten()[:, None] - weight_PS.flatten()
        gain = delta * (load[:, None] - load - delta)
        best = int(torch.where(allowed, gain, torch.iinfo(gain.dtype).min).argmax())
        u, v = divmod(best, members_PS.numel())
        flat = members_PS.view(-1)
        flat[u], flat[v] = int(flat[v]), int(flat[u])


def _grouped(members_YPS: Tensor, group_YI: Tensor) -> Tensor:
    return group_YI.gather(1, members_YPS.flatten(1)).view_as(members_YPS)


def _doubled(group: Tensor) -> Tensor:
    """Which slots hold a group that their pack holds more than once."""
    ordered, order = group.sort(dim=-1, stable=True)
    repeats = ordered[..., 1:] == ordered[..., :-1]
    edge = repeats.new_zeros(*repeats.shape[:-1], 1)
    either = torch.cat([repeats, edge], -1) | torch.cat([edge, repeats], -1)
    return torch.zeros_like(either).scatter_(-1, order, either)
