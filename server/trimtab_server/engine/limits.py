"""Refuses requests that need too much memory or too many loops, before any work is done.

The bounds are on the solver's largest tensors, in elements. A tensor that the solver makes row by
row counts for one row. Sizes that are invalid pass: later checks name the rule that they break.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from trimtab_server.domain.errors import ResourceExhaustedError
from trimtab_server.domain.topology import Topology
from trimtab_server.engine.config import Limits
from trimtab_server.solver.improve import DEFAULT_TOP_K
from trimtab_server.solver.settings import Settings

_Held = tuple[str, tuple[int, ...]]
"""The name of a tensor for error messages, and its shape."""


def check_pack(
    limits: Limits,
    shape: Sequence[int],
    num_packs: int,
    settings: Settings,
    *,
    grouped: bool = False,
) -> None:
    """Raise ResourceExhaustedError if packing weights [X, n] would need too much.

    `grouped`: whether items have groups.
    """
    rows, items = _matrix(shape)
    _check_settings(limits, settings)
    _check("items of a row", items, "max_slots", limits.max_slots)
    _check_held(limits, _held_to_pack(rows, items, num_packs, settings, grouped))


def check_place(
    limits: Limits,
    shape: Sequence[int],
    topology: Topology,
    settings: Settings,
    *,
    current: bool = False,
    budget: bool = False,
) -> None:
    """Raise ResourceExhaustedError if placing a load [L, E] would need too much.

    `current`: whether there is a current placement. `budget`: whether it is to be improved.
    """
    layers, experts = _matrix(shape)
    _check_settings(limits, settings)
    _check("topology.num_replicas", topology.num_replicas, "max_slots", limits.max_slots)
    _check_held(limits, _held_to_plan(layers, experts, topology, settings))
    if current:
        _check_held(limits, _held_to_compare(layers, experts, topology))
    if budget:
        _check_held(limits, _held_to_improve(experts, topology))


def _held_to_pack(
    rows: int, items: int, packs: int, settings: Settings, grouped: bool
) -> Iterator[_Held]:
    starts, swapped = settings.restarts, _slots_tried(settings.top_k, packs, items)
    yield "the items of all restarts", (rows, starts, items)
    yield "the candidate swaps of a row", (swapped, swapped)
    if grouped:
        yield "restarts x items x packs of a row", (starts, items, packs)


def _held_to_plan(
    layers: int, experts: int, topology: Topology, settings: Settings
) -> Iterator[_Held]:
    yield "load", (layers, experts)
    yield "layers x GPUs x experts", (layers, topology.num_gpus, experts)
    if topology.num_groups > 1:
        yield from _held_to_pack(
            layers, topology.num_groups, topology.num_nodes, settings, grouped=False
        )
    # Each part of a layer is a row. The replicas of an expert form a group.
    parts = topology.num_parts
    replicas, gpus = topology.num_replicas // parts, topology.num_gpus // parts
    yield from _held_to_pack(layers * parts, replicas, gpus, settings, grouped=True)


def _held_to_compare(layers: int, experts: int, topology: Topology) -> Iterator[_Held]:
    replicas, slots = topology.num_replicas, topology.slots_per_gpu
    yield "layers x slots x slots of a GPU", (layers, replicas, slots)
    # Every slot may be filled from any of the GPUs that have its expert.
    sources = min(topology.num_gpus, max(replicas - experts, 0) + 1)
    yield "moves x GPUs they may come from", (layers, replicas, sources)


def _held_to_improve(experts: int, topology: Topology) -> Iterator[_Held]:
    swapped = _slots_tried(DEFAULT_TOP_K, topology.num_gpus, topology.num_replicas)
    yield "the candidate swaps of a layer", (swapped, swapped)
    yield "slots x experts of a layer", (topology.num_replicas, experts)


def _slots_tried(top_k: int, packs: int, items: int) -> int:
    """Number of slots of the K heaviest packs."""
    return min(top_k, packs) * (items // max(packs, 1))


def _matrix(shape: Sequence[int]) -> tuple[int, int]:
    return (shape[0], shape[1]) if len(shape) == 2 else (0, 0)


def _check_held(limits: Limits, held: Iterator[_Held]) -> None:
    for what, shape in held:
        _check(what, math.prod(shape), "max_tensor_elements", limits.max_tensor_elements)


def _check_settings(limits: Limits, settings: Settings) -> None:
    _check("options.restarts", settings.restarts, "max_restarts", limits.max_restarts)
    _check("options.top_k", settings.top_k, "max_top_k", limits.max_top_k)


def _check(what: str, value: int, setting: str, limit: int) -> None:
    if value > limit:
        raise ResourceExhaustedError(
            f"{what}: {value} is over this server's limit of {limit} (setting {setting})"
        )
