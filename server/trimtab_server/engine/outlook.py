"""How balanced a deployment is: as its load predicts it, and as its GPUs have had it."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from trimtab_protocol.placement import Placement
from trimtab_server.domain.balance import OverLayers, loads_with
from trimtab_server.engine.status import Outlook
from trimtab_server.engine.tallies import Tallies
from trimtab_server.loads.estimates import Loads
from trimtab_server.loads.measured import measured_loads

Owners = Mapping[str, tuple[int, ...]]
"""The GPUs of each worker of the group, by its name."""


class Lookout:
    """Looks again and again, but only where there is anything new to see.

    Args:
        tallies: what the workers have counted.

    Attributes:
        outlook: as it was seen last.
    """

    def __init__(self, tallies: Tallies) -> None:
        self.outlook = Outlook()
        self._tallies = tallies
        self._seen: object = None

    def look(self, served: Placement, shadow: Placement | None, owners: Owners) -> None:
        """See how balanced it is now.

        Args:
            served: the placement in force.
            shadow: that would be; None: not in shadow mode.
            owners: those who count what their own slots process.
        """
        seen = self._tallies.changes, served, shadow
        if seen == self._seen:
            return
        self._seen, tallies = seen, self._tallies
        last, smoothed = tallies.last_rates(), tallies.rates()
        last_LE, smoothed_LE = tallies.sum(last), tallies.load()
        self.outlook = Outlook(
            predicted=_predicted(served, last_LE),
            predicted_smoothed=_predicted(served, smoothed_LE),
            measured=_measured(served, last, owners),
            measured_smoothed=_measured(served, smoothed, owners),
            shadow=None if shadow is None else _predicted(shadow, last_LE),
            shadow_smoothed=None if shadow is None else _predicted(shadow, smoothed_LE),
        )


def _predicted(placement: Placement, load_LE: Loads) -> OverLayers | None:
    return OverLayers.of(loads_with(placement, load_LE))


def _measured(
    placement: Placement, rates: Mapping[str, Loads], owners: Owners
) -> OverLayers | None:
    owned = [(gpus, rates[worker]) for worker, gpus in owners.items() if worker in rates]
    loads_LG = measured_loads(owned, placement.phy2log, placement.num_gpus)
    if loads_LG is None:
        return None
    return OverLayers.of(torch.from_numpy(loads_LG))
