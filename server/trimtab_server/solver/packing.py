"""Packs items into packs of equal count and nearly equal weight."""

from __future__ import annotations

from operator import index
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trimtab_server.domain.arrays import as_amounts, as_indices, require_shape
from trimtab_server.domain.errors import require, require_integers
from trimtab_server.solver.backends.backend import Backend, Packing
from trimtab_server.solver.backends.select import BackendName, backend_for
from trimtab_server.solver.settings import Objective, Settings
from trimtab_server.solver.stages import Stage, untimed


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
    backend: BackendName | Backend = "auto",
) -> tuple[Tensor, Tensor]:
    """Pack the n items of each row into P packs of exactly n / P items.

    1. LPT with capacity: items go by descending weight to the lightest pack with
       room.
    2. Restarts: start 0 uses that order; the others scale the sort keys by noise
       that depends on (seed, restart, item) alone. Of all refined starts, the one
       with the lowest maximum wins; then the lowest sum of squares, then the
       lowest index.
    3. Refinement: the best swap between the K heaviest and the K lightest packs
       is applied repeatedly (see the reference's `refine`).

    Weights are first scaled to integers (see `quantise`), so the answer does not
    depend on device, threads or batching. Ties go to the lowest index.

    Args:
        weight: [X, n] of any real dtype, finite, >= 0.
        num_packs: P; it divides n.
        item_group: int [X, n]. Two items of a row that have the same group share a
            pack only if the group has more items than there are packs.
        top_k: K; at most P are used.
        max_iterations: swaps allowed in each row; None to swap until no swap gains.
        restarts: number of starts.
        objective: "l2", or "range" to swap only between the heaviest and the lightest
            pack, so that these two come closest together.
        seed: any integer, used modulo 2**64.
        tolerance: a row is done when max - min is at most this share of the mean.
        backend: see `backend_for`.

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
    backend: BackendName | Backend = "auto",
    stage: Stage = untimed,
) -> Packing:
    """`balanced_packing` with its settings as one value; also returns steps and swaps."""
    weight_XI = as_amounts(weight, "weight")
    items = weight_XI.shape[1]
    require_integers(num_packs=num_packs)
    num_packs = index(num_packs)
    require(num_packs >= 1, "num_packs", f"{num_packs} is below 1")
    require(items % num_packs == 0, "num_packs", f"{num_packs} does not divide {items} items")
    group_XI = None if item_group is None else _dense_groups(item_group, weight_XI)
    chosen = backend_for(backend, weight_XI.device)
    with stage("pack"):
        return chosen.pack(weight_XI, num_packs, group_XI, settings)


def _dense_groups(item_group: Any, weight_XI: Tensor) -> Tensor:
    """The groups of each row, renumbered from 0, int64 [X, n]."""
    group_XI = as_indices(item_group, "item_group").to(weight_XI.device)
    require_shape(group_XI, "item_group", weight_XI, "weight")
    # NumPy wakes no threads (see `unthreaded`); it serves for devices too, since items are few.
    given_XI = group_XI.cpu().numpy()
    order_XI = given_XI.argsort(1)
    ordered_XI = np.take_along_axis(given_XI, order_XI, 1)
    new_XI = np.diff(ordered_XI, axis=1, prepend=ordered_XI[:, :1]) != 0
    dense_XI = np.empty_like(given_XI)
    np.put_along_axis(dense_XI, order_XI, new_XI.cumsum(1), 1)
    return torch.from_numpy(dense_XI).to(weight_XI.device)
