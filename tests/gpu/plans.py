"""Times whole plans: on the device alone, and for callers."""

from __future__ import annotations

import time
from collections.abc import Iterator

from tests.gpu.problems import PROBLEMS
from tests.gpu.report import Report
from tests.gpu.surroundings import DEVICE, not_passed_on
from tests.gpu.timing import device_us, filled_job, wall_us
from trimtab_server.solver.backends.cuda.backend import Cuda

_COLUMNS = [
    "plan",
    "on the device us",
    "loads on the device, wall us",
    "loads on the host, wall us",
    "first call s",
]


def run(report: Report, _beside: str | None) -> bool:
    """Time all problems."""
    report.table("Plans of 58 layers of 256 experts, top 16", _COLUMNS, _rows())
    return True


def _rows() -> Iterator[list[object]]:
    cuda = Cuda(DEVICE, not_passed_on)
    for problem in PROBLEMS:
        load_LE = problem.load()
        there_LE = load_LE.to(DEVICE)
        began = time.perf_counter()
        cuda.plan(load_LE, problem.topology, problem.how)
        first = time.perf_counter() - began
        walls = [
            wall_us(lambda: cuda.plan(source_LE, problem.topology, problem.how))  # noqa: B023
            for source_LE in (there_LE, load_LE)
        ]
        yield [problem.name, device_us(filled_job(problem).launch), *walls, first]
