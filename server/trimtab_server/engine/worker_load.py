"""What one worker has counted, and the load that it makes of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trimtab_server.loads.counters import Counters, Taken
from trimtab_server.loads.estimates import Estimate


@dataclass(frozen=True, eq=False)
class LatestReport:
    """What a worker counted between its last two reports: tokens [L, E] in `steps` steps."""

    tokens_LE: npt.NDArray[np.float64]
    steps: int


class WorkerLoad:
    """The counters of a worker's newest incarnation, and the worker's load estimate.

    A new incarnation counts anew. Its load goes on from the one before: it serves the same.

    Attributes:
        counters: of the newest incarnation.
        estimate: tokens a step.
        latest: None before the first report since the server's start.
        reported_at: when the last report came, on the event loop's clock; None before the first
            since the server's start.
    """

    def __init__(self, counters: Counters, estimate: Estimate) -> None:
        self.counters = counters
        self.estimate = estimate
        self.latest: LatestReport | None = None
        self.reported_at: float | None = None
        self._late_LE: npt.NDArray[np.float64] | None = None

    def reset(self, estimate: Estimate) -> None:
        """Begin with another estimate, since nothing that was reported so far was traffic."""
        self.estimate, self.latest, self._late_LE = estimate, None, None

    def add(self, taken: Taken) -> LatestReport | None:
        """Add a report to the load; returns None if it adds nothing yet."""
        if taken.counted.gap:
            return None
        tokens_LE = taken.tokens_LE.astype(np.float64)
        if self._late_LE is not None:
            tokens_LE += self._late_LE
        if taken.steps:
            self.estimate.add(tokens_LE, taken.steps)
            self.latest = LatestReport(tokens_LE, taken.steps)
        # Without steps, these are more tokens of a step that the report before had counted. They
        # are added to the next one's.
        self._late_LE = None if taken.steps else tokens_LE
        return self.latest if taken.steps else None
