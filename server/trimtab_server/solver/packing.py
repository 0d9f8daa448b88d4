"""Balanced packing: items into packs of equal count and near-equal weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trimtab_server.domain.arrays import as_amounts, as_indices
from trimtab_server.domain.errors import require, require_integers
from trimtab_server.solver.lpt import lpt
from trimtab_server.solver.noise import key_factors
from trimtab_server.solver.quantise import quantise
from trimtab_server.solver.refine import refine
from trimtab_server.solver.separate import separate
from trimtab_server.solver.settings import Backend, Objective, Settings, resolve_backend
from trimtab_server.solver.stages import Stage, untimed


@dataclass(frozen=True)
class Packing:
    """Where each item went, and what it took.

    Attributes:
        pack_index: int64 [X, n], the pack of each item.
        rank_in_pack: int64 [X, n], its position in the pack, in [0, n / P).
        iterations: refinement steps, summed over rows and restarts.
        swaps: swaps applied, likewise.
    """

    pack_index: Tensor
    rank_in_pack: Tensor
    iterations: int
    swaps: int


def balanced_packing(
    weight: Any,
    num_packs: int,
    *,
    item_group: Any = None,
    top_k: int = 4,
    max_iterations: int | None = 20,
    restarts: int = 1,
    objective: Objective = "l2",
    seed: int = 0,
    tolerance: float = 0.0,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor]:
    """Pack the n items of each row into P packs of exactly n / P items.

    1. LPT with capacity: items by descending weight, each to the lightest pack
       with room.
    2. Restarts: start 0 is that order, the others scale the sort keys by noise
       that depends on (seed, restart, item) alone. Of all starts, refined, the
       one with the lowest maximum wins; then the lowest sum of squares, then the
       lowest index.
    3. Refinement: the best swap between the K heaviest and the K lightest packs,
       repeated (see `refine`).

    Weights are first scaled to integers (see `quantise`), so the answer does not
    depend on device, threads or batching. Ties go to the lowest index.

    Args:
        weight: [X, n] of any real dtype, finite, >= 0.
        num_packs: P; it divides n.
        item_group: int [X, n]. Items of one row and group share a pack only
            where a group has more items than there are packs.
        top_k: K; more than P is read as P.
        max_iterations: most swaps of a row; None: until none gains.
        restarts: number of starts.
        objective: "l2", or "range" for swaps between the heaviest and the lightest
            pack alone that bring those two closest together.
        seed: any integer, modulo 2**64.
        tolerance: a row is done when max - min is at most this share of the mean.
        backend: "auto" or "reference".

    Returns:
        pack_index, rank_in_pack: int64 [X, n], on the device of `weight`.

    Raises:
        InvalidArgumentError: an argument breaks a rule above.

    The method is that of DeepSeek's EPLB (`balanced_packing`) with the refinement
    found by evolutionary search over it, generalised and made exact.
    """
    settings = Settings(top_k, max_iterations, restarts, objective, seed, tolerance)
    packing = pack(weight, num_packs, item_group=item_group, settings=settings, backend=backend)
    return packing.pack_index, packing.rank_in_pack


def pack(
    weight: Any,
    num_packs: int,
    *,
    item_group: Any = None,
    settings: Settings,
    backend: Backend = "auto",
    stage: Stage = untimed,
) -> Packing:
    """`balanced_packing`, with its settings as one value and with what it took."""
    resolve_backend(backend)
    weight_XI = as_amounts(weight, "weight")
    items = weight_XI.shape[1]
    require_integers(num_packs=num_packs)
    require(num_packs >= 1, "num_packs", f"{num_packs} is below 1")
    require(items % num_packs == 0, "num_packs", f"{num_packs} does not divide {items} items")
    group_XI = None if item_group is None else _dense_groups(item_group, weight_XI)
    with stage("pack"):
        return _pack(quantise(weight_XI), num_packs, group_XI, settings)


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
    # Between one pair of packs, the swap that brings them closest together is
    # the one that lowers the sum of squares most: both measure |gap / 2 - d|.
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
    """Index of each row's best start, int64 [X]: lowest maximum, then L2, then index."""
    starts = members_XTPS.shape[1]
    weight_XTI = weight_XI.unsqueeze(1).expand(-1, starts, -1)
    load_XTP = weight_XTI.gather(2, members_XTPS.flatten(2)).view_as(members_XTPS).sum(-1)
    max_XT = load_XTP.amax(2)
    squares_XT = load_XTP.square().sum(2)
    lowest_max_XT = max_XT == max_XT.amin(1, keepdim=True)
    return torch.where(lowest_max_XT, squares_XT, torch.iinfo(torch.int64).max).argmin(1)


def _dense_groups(item_group: Any, weight_XI: Tensor) -> Tensor:
    """Groups renumbered 0, 1, … in each row, int64 [X, n]."""
    group_XI = as_indices(item_group, "item_group").to(weight_XI.device)
    require(
        group_XI.shape == weight_XI.shape,
        "item_group",
        f"shape {tuple(group_XI.shape)} differs from weight's {tuple(weight_XI.shape)}",
    )
    ordered_XI, order_XI = group_XI.sort(dim=1, stable=True)
    new_XI = torch.zeros_like(ordered_XI)
    new_XI[:, 1:] = ordered_XI[:, 1:] != ordered_XI[:, :-1]
    return torch.zeros_like(group_XI).scatter_(1, order_XI, new_XI.cumsum(1))
