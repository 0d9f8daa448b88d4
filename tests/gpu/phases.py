"""The time that each kernel adds to a plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from tests.gpu.problems import PROBLEMS
from tests.gpu.report import Report
from tests.gpu.timing import device_us, filled_job

_COLUMNS = ["plan", "replicate", "+ order", "+ deal", "+ refine", "+ choose"]


def run(report: Report, _beside: str | None) -> bool:
    """Time the kernels of all problems without hierarchical placement."""
    report.table("Microseconds on the device up to and with each kernel", _COLUMNS, _rows())
    return True


def _rows() -> Iterator[list[object]]:
    for problem in PROBLEMS:
        if problem.topology.num_parts > 1:
            continue
        job = filled_job(problem)
        starts = job.starts[0]
        steps = [
            job.launch_replicate,
            lambda job=job: job.starts[0].launch_order(job._weight_XR, job._code_XR),
            starts.launch_deal,
            starts.launch_refine,
            job.launch_choose,
        ]
        yield [problem.name, *(device_us(_all(steps[: n + 1])) for n in range(len(steps)))]


def _all(steps: Sequence[Callable[[], None]]) -> Callable[[], None]:
    def launch() -> None:
        for step in steps:
            step()

    return launch
