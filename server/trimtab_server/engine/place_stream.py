"""The state of one PlaceStream call: the placement that its next load starts from."""

from __future__ import annotations

import math
from dataclasses import replace

from trimtab_protocol.placement import Placement
from trimtab_server.engine.plan_request import Array, Terms
from trimtab_server.engine.plan_result import Placed
from trimtab_server.engine.planner import Planner


class PlaceStream:
    """Places loads under the same terms, each from the answer before it.

    Loads of one stream are placed one at a time: await each before the next.

    Args:
        terms: of all loads. The budget is not used for a load without a current placement.
        current: the placement that the first load starts from; None if there is none.

    Attributes:
        current: the last answer. It does not change if a load cannot be placed.
    """

    def __init__(self, planner: Planner, terms: Terms, current: Placement | None = None) -> None:
        self._planner = planner
        self._terms = terms
        self.current = current

    async def place(self, load: Array, *, deadline: float = math.inf) -> Placed:
        """Place one load [L, E]; raises what `Planner.place` raises."""
        terms = self._terms if self.current else replace(self._terms, budget=None)
        placed = await self._planner.place(load, terms, self.current, deadline=deadline)
        self.current = placed.placement
        return placed
