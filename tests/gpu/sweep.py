"""Times plans for several numbers of warps of one kernel, with the others as usual."""

from __future__ import annotations

import time
from collections.abc import Iterator

from tests.gpu.problems import PROBLEMS
from tests.gpu.report import Report
from tests.gpu.surroundings import REHEARSAL
from tests.gpu.timing import device_us, filled_job

_SECONDS = 50
"""Time limit: some combinations are compiled here for the first time."""

_SWEPT = {"deal": (1, 2, 4, 8), "refine": (1, 2, 4, 8), "order": (1, 2, 4, 8), "row": (2, 4, 8)}


def run(report: Report, _beside: str | None) -> bool:
    """Time all combinations, the wide problems first, until the time limit."""
    end = time.monotonic() + _SECONDS
    report.table("Warps", ["plan", "kernel", "warps", "on the device us"], _rows(end))
    return True


def _rows(end: float) -> Iterator[list[object]]:
    flat = [problem for problem in PROBLEMS if problem.topology.num_parts == 1]
    swept = {"deal": (1,)} if REHEARSAL else _SWEPT
    for kernel, counts in swept.items():
        for problem in (*flat[-2:], *flat[:2]):
            for warps in counts:
                if time.monotonic() > end:
                    return
                job = filled_job(problem, **{kernel: warps})
                yield [problem.name, kernel, warps, device_us(job.launch)]
