"""Top-K / bottom-K swap refinement under the L2 objective."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from trimtab_server.solver.backends.reference.memory import split_rows


class Refined(NamedTuple):
    """Items of each pack, int64 [Y, P, S], and steps and swaps, summed over rows."""

    members_YPS: Tensor
    iterations: int
    swaps: int


class _Swap(NamedTuple):
    """Best swap of each row: packs and slots of both items, and its gain."""

    heavy_Y: Tensor
    heavy_slot_Y: Tensor
    light_Y: Tensor
    light_slot_Y: Tensor
    gain_Y: Tensor


def refine(
    members_YPS: Tensor,
    weight_YI: Tensor,
    group_YI: Tensor | None,
    top_k: int,
    max_iterations: int | None,
    tolerance: float,
) -> Refined:
    """Apply the best swap of each row repeatedly, until none gains.

    A step tries all pairs of an item u in one of the K heaviest packs A of a row and an
    item v in one of the K lightest packs B. With d = w_u - w_v, swapping them lowers the
    sum of squared pack weights by 2 d (W_A - W_B - d). The swap that lowers it most is
    applied; ties go to the heavier A, the lighter B, then the lower slots. A swap that
    would put an item beside another of its group is not allowed.

    Refinement ends, since the sum of squares is an integer and each swap lowers it.

    Args:
        members_YPS: int64 [Y, P, S], items of each pack.
        weight_YI: int64 [Y, n], with the sum of each row below 2**30.
        group_YI: int64 [Y, n]; None without groups.
        top_k: K; at most P are used.
        max_iterations: swaps allowed in each row; None for no limit.
        tolerance: a row is done when max - min is at most this share of the mean.
    """
    packs, slots = members_YPS.shape[1:]
    top_k = min(top_k, packs)
    row_Y = torch.arange(len(members_YPS), device=members_YPS.device)
    parts = []
    for rows in split_rows(row_Y, (top_k * slots) ** 2):
        group = None if group_YI is None else group_YI[rows]
        batch = members_YPS[rows], weight_YI[rows], group
        parts.append(_refine_rows(*batch, top_k, max_iterations, tolerance))
    members, iterations, swaps = zip(*parts, strict=True)
    return Refined(torch.cat(members), sum(iterations), sum(swaps))


def _refine_rows(
    members_YPS: Tensor,
    weight_YI: Tensor,
    group_YI: Tensor | None,
    top_k: int,
    max_iterations: int | None,
    tolerance: float,
) -> Refined:
    weight_YPS = _of_members(weight_YI, members_YPS)
    group_YPS = None if group_YI is None else _of_members(group_YI, members_YPS)
    active_Y = torch.arange(len(members_YPS), device=members_YPS.device)
    iterations = swaps = step = 0
    while len(active_Y) and (max_iterations is None or step < max_iterations):
        load_YP = weight_YPS[active_Y].sum(-1)
        active_Y = active_Y[_spread(load_YP) > tolerance]
        if not len(active_Y):
            break
        swap = _best_swap(weight_YPS, group_YPS, active_Y, top_k)
        iterations += len(active_Y)
        gains_Y = swap.gain_Y > 0
        active_Y = active_Y[gains_Y]
        heavy, heavy_slot, light, light_slot, _ = (column[gains_Y] for column in swap)
        here, there = (active_Y, heavy, heavy_slot), (active_Y, light, light_slot)
        for table in (members_YPS, weight_YPS, group_YPS):
            if table is not None:
                table[here], table[there] = table[there], table[here]
        swaps += len(active_Y)
        step += 1
    return Refined(members_YPS, iterations, swaps)


def _of_members(value_YI: Tensor, members_YPS: Tensor) -> Tensor:
    return value_YI.gather(1, members_YPS.flatten(1)).view_as(members_YPS)


def _spread(load_YP: Tensor) -> Tensor:
    """(max - min) / mean of each row, float64; 0 if the row has no weight."""
    spread_Y = (load_YP.amax(1) - load_YP.amin(1)).to(torch.float64)
    return spread_Y * load_YP.shape[1] / load_YP.sum(1).clamp(min=1)


def _best_swap(weight_YPS: Tensor, group_YPS: Tensor | None, active_Y: Tensor, top_k: int) -> _Swap:
    load_YP = weight_YPS[active_Y].sum(-1)
    heavy_YK = torch.argsort(load_YP, dim=1, descending=True, stable=True)[:, :top_k]
    light_YK = torch.argsort(load_YP, dim=1, stable=True)[:, :top_k]
    row_Y1 = active_Y.unsqueeze(1)
    # Axes: row, heavy pack, light pack, slot in heavy, slot in light. A pack that is
    # on both sides needs no mask: its W_A - W_B is 0, so no swap inside it gains.
    delta = (
        weight_YPS[row_Y1, heavy_YK][:, :, None, :, None]
        - weight_YPS[row_Y1, light_YK][:, None, :, None, :]
    )
    gap = load_YP.gather(1, heavy_YK)[:, :, None] - load_YP.gather(1, light_YK)[:, None, :]
    gain = delta * (gap[..., None, None] - delta)
    if group_YPS is not None:
        same = (
            group_YPS[row_Y1, heavy_YK][:, :, None, :, None]
            == group_YPS[row_Y1, light_YK][:, None, :, None, :]
        )
        # u meets its group in B unless v is its only member there, and the reverse.
        meets = (same.sum(-1, keepdim=True) > same.int()) | (
            same.sum(-2, keepdim=True) > same.int()
        )
        gain.masked_fill_(meets, -1)
    slots = weight_YPS.shape[2]
    flat = gain.flatten(1)
    best_Y = flat.argmax(1)
    pair_Y, slot_pair_Y = best_Y // slots**2, best_Y % slots**2
    return _Swap(
        heavy_YK.gather(1, (pair_Y // top_k).unsqueeze(1)).squeeze(1),
        slot_pair_Y // slots,
        light_YK.gather(1, (pair_Y % top_k).unsqueeze(1)).squeeze(1),
        slot_pair_Y % slots,
        flat.gather(1, best_Y.unsqueeze(1)).squeeze(1),
    )
