"""Predicts the load of GPUs, by how their engine divides tokens over the replicas of an expert."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from trimtab_protocol.messages import Split
from trimtab_protocol.placement import Placement
from trimtab_server.domain.balance import loads_with
from trimtab_server.loads.estimates import Loads
from trimtab_server.solver import best_split_loads

GpuLoads = Callable[[Placement, Loads], Tensor]
"""(placement, load [L, E]) -> load of each GPU, float64 [L, G]."""


def even_loads(placement: Placement, load_LE: Loads) -> Tensor:
    """Each replica gets the same share."""
    return loads_with(placement, load_LE)


def best_loads(placement: Placement, load_LE: Loads) -> Tensor:
    """Each batch is divided so that the heaviest GPU gets as little as it can."""
    return best_split_loads(placement.phy2log, load_LE, placement.num_gpus)


GPU_LOADS: dict[Split, GpuLoads] = {Split.EVEN: even_loads, Split.BEST: best_loads}
