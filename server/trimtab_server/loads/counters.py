"""The counts of one worker: rule P10 of PROTOCOL.md. Pure."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trimtab_protocol.messages import Report
from trimtab_server.domain.errors import require

Counts = npt.NDArray[np.int64]


class Counted(NamedTuple):
    """What has been made of a report: tokens over all layers and experts.

    Attributes:
        difference: added to the load.
        gap: known to have been processed, but not when or not as traffic, and so not added.
        counts: of the report.
    """

    difference: int
    gap: int
    counts: int


class Taken(NamedTuple):
    """A report that was newer than the last.

    Attributes:
        counted: what it adds up to.
        tokens_LE: int64 [L, E], what it adds to the load; all 0 for a gap.
        steps: in which they were counted; 0: in the last one of the report before.
    """

    counted: Counted
    tokens_LE: Counts
    steps: int


class Counters:
    """The baseline of one incarnation of a worker.

    Attributes:
        incarnation: of the worker's process.
        seq: of the last report taken; 0 before the first.
        last_step: the last step that it covers; -1 before the first.
        counts_LE: its counts.
    """

    def __init__(self, incarnation: int, num_layers: int, num_experts: int) -> None:
        self.incarnation = incarnation
        self.seq = 0
        self.last_step = -1
        self.counts_LE = np.zeros((num_layers, num_experts), np.int64)

    def take(self, report: Report) -> Taken | None:
        """Take what a report has beyond the baseline; None if it is not newer than the last.

        The number of a first report says whether all of it is load. 1: nothing has been
        acknowledged, so nobody has counted any of it, however many reports were lost before
        it came. Another one: a server has counted some of it, and has either lost its store
        or died before it saved the baseline. So it is a gap: the estimate that those counts
        went into is gone, nobody knows over how many steps they came together, and what may
        be weeks old must not pass for fresh load. What a report discards is a gap as well.

        Raises:
            InvalidArgumentError: the shape is another, a count has fallen, or the steps have.
        """
        if report.seq <= self.seq:
            return None
        shape, known = report.counts_LE.shape, self.counts_LE.shape
        require(shape == known, "report.counts", f"shape {list(shape)} is not {list(known)}")
        steps = f"{report.last_step} is before {self.last_step}, of report {self.seq}"
        require(report.last_step >= self.last_step, "report.last_step", steps)
        difference_LE = report.counts_LE - self.counts_LE
        self._require_risen(difference_LE, report)
        counts, total = int(report.counts_LE.sum()), int(difference_LE.sum())
        missed = self.seq == 0 and report.seq > 1
        covered = report.last_step - (self.last_step if self.seq else report.first_step - 1)
        self.counts_LE, self.seq, self.last_step = report.counts_LE, report.seq, report.last_step
        if missed or report.discard:
            return Taken(Counted(0, total, counts), np.zeros_like(difference_LE), covered)
        return Taken(Counted(total, 0, counts), difference_LE, covered)

    def _require_risen(self, difference_LE: Counts, report: Report) -> None:
        if difference_LE.min() < 0:
            layer, expert = np.unravel_index(difference_LE.argmin(), difference_LE.shape)
            now, before = report.counts_LE[layer, expert], self.counts_LE[layer, expert]
            field = f"report.counts[{layer}, {expert}]"
            require(False, field, f"{now} is below {before}, of report {self.seq}")
