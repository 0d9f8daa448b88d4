"""Small fleets for tests, and small switches."""

from __future__ import annotations

from typing import Any

from trimtab_client import Placement
from trimtab_tools.simulate.fleet import Fleet
from trimtab_tools.simulate.options import FleetOptions

SMALL = {"ranks": 4, "layers": 2, "experts": 8, "hidden": 16, "tokens": 8, "step_seconds": 0.03}
"""Ranks that take their steps faster slow down the servers' starts."""


def small_options(**values: object) -> FleetOptions:
    """Options of a small fleet, with these values changed."""
    return FleetOptions(**{**SMALL, **values})


PATIENCE = 600.0
"""Seconds that tests wait for a fleet. On a busy machine a server may take minutes to start."""


def small_fleet(options: FleetOptions | None = None, **arguments: Any) -> Fleet:
    """A fleet for which tests wait patiently."""
    return Fleet(options or small_options(), **{"patience": PATIENCE, **arguments})


def one_swap(placement: Placement) -> Placement:
    """Two slots of different GPUs exchange their experts, which takes exactly one switch."""
    rows = placement.phy2log.copy()
    rows[0, [0, -1]] = rows[0, [-1, 0]]
    return Placement.of(rows, placement.num_experts, placement.num_gpus)
