"""`balanced_packing` for all rows and restarts at once: its three stages together."""

from __future__ import annotations

import torch
from torch import Tensor

from trimtab_server.solver.backends.backend import Packing
from trimtab_server.solver.backends.reference.lpt import lpt
from trimtab_server.solver.backends.reference.memory import split_rows
from trimtab_server.solver.backends.reference.noise import key_factors
from trimtab_server.solver.backends.reference.quantise import quantise
from trimtab_server.solver.backends.reference.refine import refine
from trimtab_server.solver.backends.reference.separate import separate
from trimtab_server.solver.settings import Settings


def pack(weight_XI: Tensor, num_packs: int, group_XI: Tensor | None, settings: Settings) -> Packing:
    """Pack the items of all rows.

    Args:
        weight_XI: float64 [X, n], finite, >= 0.
        num_packs: P; it divides n.
        group_XI: int64 [X, n] in [0, n); None without groups.
        settings: see `balanced_packing`.
    """
    held = settings.restarts * weight_XI.shape[1] * (1 if group_XI is None else num_packs)
    amounts = split_rows(weight_XI, held)
    groups = [None] * len(amounts) if group_XI is None else split_rows(group_XI, held)
    parts = [
        _pack(quantise(amount), num_packs, group, settings)
        for amount, group in zip(amounts, groups, strict=True)
    ]
    return Packing(
        torch.cat([part.pack_index for part in parts]),
        torch.cat([part.rank_in_pack for part in parts]),
        sum(part.iterations for part in parts),
        sum(part.swaps for part in parts),
    )


def _pack(
    weight_XI: Tensor, num_packs: int, group_XI: Tensor | None, settings: Settings
) -> Packing:
    rows, items = weight_XI.shape
    factor_TI = key_factors(settings.seed, settings.restarts, items, weight_XI.device)
    key_YI = (weight_XI.unsqueeze(1) * factor_TI).flatten(0, 1)
    weight_YI = weight_XI.repeat_interleave(settings.restarts, 0)
    group_YI = None if group_XI is None else group_XI.repeat_interleave(settings.restarts, 0)
    members_YPS = lpt(weight_YI, key_YI, num_packs, group_YI)
    if group_YI is not None:
        members_YPS = separate(members_YPS, weight_YI, group_YI)
    # Between two packs, the swap that brings them closest together is also the one
    # that lowers the sum of squares most: both minimise |gap / 2 - d|.
    top_k = 1 if settings.objective == "range" else settings.top_k
    refined = refine(
        members_YPS, weight_YI, group_YI, top_k, settings.max_iterations, settings.tolerance
    )
    members_XTPS = refined.members_YPS.unflatten(0, (rows, settings.restarts))
    best_X = _best_start(weight_XI, members_XTPS)
    members_XI = members_XTPS[torch.arange(rows, device=best_X.device), best_X].flatten(1)
    place_XI = torch.argsort(members_XI, dim=1)
    slots = items // num_packs
    return Packing(place_XI // slots, place_XI % slots, refined.iterations, refined.swaps)


def _best_start(weight_XI: Tensor, members_XTPS: Tensor) -> Tensor:
    """The best start of each row, int64 [X]: lowest maximum, then sum of squares, then index."""
    starts = members_XTPS.shape[1]
    weight_XTI = weight_XI.unsqueeze(1).expand(-1, starts, -1)
    load_XTP = weight_XTI.gather(2, members_XTPS.flatten(2)).view_as(members_XTPS).sum(-1)
    max_XT = load_XTP.amax(2)
    squares_XT = load_XTP.square().sum(2)
    lowest_max_XT = max_XT == max_XT.amin(1, keepdim=True)
    return torch.where(lowest_max_XT, squares_XT, torch.iinfo(torch.int64).max).argmin(1)
