"""Placements to switch to: random ones, large switches, and switches with some feature."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from trimtab_client.placement import Placement
from trimtab_tools.conformance.errors import NotApplicableError
from trimtab_tools.conformance.offers import Work

Feature = Callable[[Work], bool]
"""Whether a switch has the feature that a case is about."""

_MAX_WALK = 6
_WALKS = 200
_TRIES = 10
_NOT_FOUND = "no such switch is found for this shape"


def random_placement(
    layers: int, experts: int, slots: int, gpus: int, rng: np.random.Generator
) -> Placement:
    """A random placement in which each expert has at least one slot.

    Raises:
        InvalidArgumentError: there is no such placement.
    """
    row_R = np.arange(slots) % experts
    row_R[experts:] = rng.integers(0, experts, max(0, slots - experts))
    return Placement.of(rng.permuted(np.tile(row_R, (layers, 1)), axis=1), experts, gpus)


def large_target(base: Placement, staging_slots: int, rng: np.random.Generator) -> Placement:
    """A random placement that differs as much as the staging of each GPU has room for.

    Raises:
        NotApplicableError: no other placement than the base is found.
    """
    for _ in range(_TRIES):
        target = _large_target(base, staging_slots, rng)
        if target != base:
            return target
    raise NotApplicableError(_NOT_FOUND)


def target_with(
    base: Placement, staging_slots: int, rng: np.random.Generator, feature: Feature
) -> Placement:
    """The target of a small switch with a feature.

    The search takes random steps in one layer, between at most two GPUs, and begins with few
    steps. So it is easy to see in such a switch what an engine does wrong.

    Raises:
        NotApplicableError: none is found.
    """
    layers, slots = base.phy2log.shape
    per_gpu = slots // base.num_gpus
    for length in range(1, _MAX_WALK + 1):
        for _ in range(_WALKS):
            phy2log_LR = base.phy2log.copy()
            near_G = rng.permutation(base.num_gpus)[:2]
            near_R = (near_G[:, None] * per_gpu + np.arange(per_gpu)).ravel()
            layer = rng.integers(layers)
            for _ in range(length):
                _step(phy2log_LR[layer], near_R, rng)
            if (phy2log_LR[layer] == base.phy2log[layer]).all():
                continue
            target = Placement.of(phy2log_LR, base.num_experts, base.num_gpus)
            work = Work.between(base, target)
            if work.arrivals(range(base.num_gpus)) <= staging_slots and feature(work):
                return target
    raise NotApplicableError(_NOT_FOUND)


def _large_target(base: Placement, staging_slots: int, rng: np.random.Generator) -> Placement:
    phy2log_LR = base.phy2log.copy()
    room_G = np.full(base.num_gpus, staging_slots)
    for layer in rng.permutation(len(phy2log_LR)):
        row, taken_G = phy2log_LR[layer], np.zeros_like(room_G)
        for _ in range(2 * len(row)):
            stepped = row.copy()
            _step(stepped, np.arange(len(row)), rng)
            arrivals_G = _arrivals(base.phy2log[layer], stepped, base.num_gpus)
            if (arrivals_G <= room_G).all():
                row, taken_G = stepped, arrivals_G
        phy2log_LR[layer] = row
        room_G -= taken_G
    return Placement.of(phy2log_LR, base.num_experts, base.num_gpus)


def _step(row_R: np.ndarray, near: np.ndarray, rng: np.random.Generator) -> None:
    """Exchange two of these slots, or overwrite one by another unless that loses an expert."""
    i, j = rng.choice(near, 2)
    if rng.random() < 0.5 and (row_R == row_R[j]).sum() > 1:
        row_R[j] = row_R[i]
    else:
        row_R[[i, j]] = row_R[[j, i]]


def _arrivals(old_R: np.ndarray, new_R: np.ndarray, gpus: int) -> np.ndarray:
    """The number of experts that are new to each GPU, [G]."""
    pairs = zip(old_R.reshape(gpus, -1).tolist(), new_R.reshape(gpus, -1).tolist(), strict=True)
    return np.array([len(set(new) - set(old)) for old, new in pairs])
