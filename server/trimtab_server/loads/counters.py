"""Turns the counts that a worker reports into the load since its last report: P10. Pure."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trimtab_protocol.messages import Report
from trimtab_server.domain.errors import require

Counts = npt.NDArray[np.int64]


class Counted(NamedTuple):
    """How the tokens of a report were counted; sums over all layers and experts.

    Attributes:
        difference: tokens added to the load.
        gap: tokens not added to the load, since it is unknown when they were processed, or
            since they are not traffic.
        counts: tokens in the report.
    """

    difference: int
    gap: int
    counts: int


class Taken(NamedTuple):
    """The result of a report that was newer than the last.

    Attributes:
        counted: its sums.
        tokens_LE: int64 [L, E], the tokens that it adds to the load; all 0 for a gap.
        steps: the number of new steps; 0 if the tokens are of the last step of the report before.
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
        """Move the baseline to a report; None if the report is not newer than the last.

        The number of a first report tells whether all of it is load. If it is 1, no report was
        acknowledged, so no server has counted any of it, however many reports were lost before.
        If it is above 1, a server has counted some of it, and has lost its store or died before
        it saved the baseline. Then the report is a gap: the estimate made of those counts is
        lost, nobody knows over how many steps they were collected, and tokens that may be
        weeks old must not pass for fresh load. A report with `discard` is a gap too.

        Raises:
            InvalidArgumentError: the shape differs, or a count or the last step has fallen.
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
