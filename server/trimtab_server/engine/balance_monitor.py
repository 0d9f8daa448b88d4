"""Keeps track of how balanced a deployment is: as predicted from its load, and as measured."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from trimtab_protocol.placement import Placement
from trimtab_server.domain.balance import OverLayers
from trimtab_server.engine.gpu_loads import GpuLoads
from trimtab_server.engine.load_aggregator import LoadAggregator
from trimtab_server.engine.status import BalanceStatus
from trimtab_server.loads.estimates import Loads
from trimtab_server.loads.measured import measured_loads

Owners = Mapping[str, tuple[int, ...]]
"""The GPUs of each worker of the group, by the worker's name."""


class BalanceMonitor:
    """Computes `balance` anew only if the load or a placement has changed."""

    def __init__(self, loads: LoadAggregator) -> None:
        self.balance = BalanceStatus()
        self._loads = loads
        self._computed_for: object = None

    def refresh(
        self, served: Placement, shadow: Placement | None, owners: Owners, gpu_loads: GpuLoads
    ) -> None:
        """Compute the balance.

        Args:
            served: the placement in force.
            shadow: the placement of shadow mode; None in other modes.
            owners: the workers that count what their own slots process.
            gpu_loads: predicts the load of each GPU.
        """
        key = self._loads.changes, served, shadow, gpu_loads
        if key == self._computed_for:
            return
        self._computed_for, loads = key, self._loads
        latest, smoothed = (loads.latest_rates(), loads.rates()) if owners else ({}, {})
        latest_LE, smoothed_LE = loads.latest_load(), loads.load()
        self.balance = BalanceStatus(
            predicted=_predicted(served, latest_LE, gpu_loads),
            predicted_smoothed=_predicted(served, smoothed_LE, gpu_loads),
            measured=_measured(served, latest, owners),
            measured_smoothed=_measured(served, smoothed, owners),
            shadow=_predicted(shadow, latest_LE, gpu_loads),
            shadow_smoothed=_predicted(shadow, smoothed_LE, gpu_loads),
        )


def _predicted(
    placement: Placement | None, load_LE: Loads, gpu_loads: GpuLoads
) -> OverLayers | None:
    return None if placement is None else OverLayers.of(gpu_loads(placement, load_LE))


def _measured(
    placement: Placement, rates: Mapping[str, Loads], owners: Owners
) -> OverLayers | None:
    owned = [(gpus, rates[worker]) for worker, gpus in owners.items() if worker in rates]
    loads_LG = measured_loads(owned, placement.phy2log, placement.num_gpus)
    return None if loads_LG is None else OverLayers.of(torch.from_numpy(loads_LG))
