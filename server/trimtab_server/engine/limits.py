"""Refuses, before any work, requests whose tensors would be too large."""

from __future__ import annotations

import math
from collections.abc import Sequence

from trimtab_server.domain.errors import ResourceExhaustedError
from trimtab_server.domain.topology import Topology
from trimtab_server.engine.config import Limits
from trimtab_server.solver.settings import Settings


def check_settings(limits: Limits, settings: Settings) -> None:
    """Raise ResourceExhaustedError where the settings ask for too much."""
    _check("restarts", settings.restarts, limits.max_restarts)
    _check("top_k", settings.top_k, limits.max_top_k)


def check_pack(limits: Limits, shape: Sequence[int], num_packs: int, settings: Settings) -> None:
    """Raise ResourceExhaustedError where packing [X, n] would hold too much.

    The largest tensors are the starts [X, restarts, n] and the candidate swaps of
    one row, all pairs of an item of a heavy and an item of a light pack.
    """
    check_settings(limits, settings)
    check_elements(limits, "the items of all restarts", (*shape, settings.restarts))
    items = shape[-1] if shape else 0
    candidates = min(settings.top_k, num_packs) * (items // max(num_packs, 1))
    check_elements(limits, "the candidate swaps of a row", (candidates, candidates))


def check_place(
    limits: Limits, shape: Sequence[int], topology: Topology, settings: Settings
) -> None:
    """Raise ResourceExhaustedError where placing a load [L, E] would hold too much."""
    layers = shape[0] if shape else 0
    check_elements(limits, "load", shape)
    check_elements(limits, "layers x GPUs x experts", (*shape, topology.num_gpus))
    check_pack(limits, (layers, topology.num_replicas), topology.num_gpus, settings)
    if topology.num_groups > 1:
        check_pack(limits, (layers, topology.num_groups), topology.num_nodes, settings)


def check_elements(limits: Limits, what: str, shape: Sequence[int]) -> None:
    """Raise ResourceExhaustedError where a tensor of this shape is too large."""
    elements = math.prod(shape)
    if elements > limits.max_tensor_elements:
        raise ResourceExhaustedError(
            f"{what}: {elements} elements are over this server's limit of "
            f"{limits.max_tensor_elements} (setting max_tensor_elements)"
        )


def _check(name: str, value: int, most: int) -> None:
    if value > most:
        raise ResourceExhaustedError(
            f"options.{name}: {value} is over this server's limit of {most} (setting max_{name})"
        )
