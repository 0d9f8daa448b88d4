"""Times two builds of the kernels in turns, since a device warms up and may be shared.

`python -m tests.gpu.beside` is the process of one build: it reads numbers of problems from its
input, and answers each with the microseconds of a plan on the device, and of the whole call there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from statistics import median
from typing import Self

from tests.gpu.problems import PROBLEMS
from tests.gpu.report import LeftOutError, Report
from tests.gpu.surroundings import DEVICE, REHEARSAL
from tests.gpu.timing import device_us, filled_job, wall_us
from trimtab_server.solver.backends.cuda.backend import Cuda

_ROUNDS = 1 if REHEARSAL else 5
_COLUMNS = [
    "plan",
    "on the device us",
    "beside, on the device us",
    "beside / this",
    "loads on the device, wall us",
    "beside, wall us",
]


class _Build:
    """A process that has loaded the kernels of one build."""

    def __init__(self, path: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.gpu.beside"],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def timed(self, problem: int) -> list[float]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{problem}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the build ended with {self._process.wait()}")
        times: list[float] = json.loads(answer)
        return times


def run(report: Report, beside: str | None) -> bool:
    """Time both on all problems."""
    if beside is None:
        raise LeftOutError("--beside FOLDER names no other build")
    with _Build(os.environ["PYTHONPATH"]) as ours, _Build(beside) as theirs:
        title = "This build, and the one beside it, turn by turn"
        report.table(title, _COLUMNS, _rows(ours, theirs))
    return True


def _rows(ours: _Build, theirs: _Build) -> Iterator[list[object]]:
    for number, problem in enumerate(PROBLEMS):
        rounds = [(*ours.timed(number), *theirs.timed(number)) for _ in range(_ROUNDS)]
        device, wall, other_device, other_wall = (
            median(times) for times in zip(*rounds, strict=True)
        )
        yield [problem.name, device, other_device, other_device / device, wall, other_wall]


def _serve() -> None:
    cuda, launches = Cuda(DEVICE, lambda *_: None), {}
    for line in sys.stdin:
        number = int(line)
        problem = PROBLEMS[number]
        load_LE = problem.load().to(DEVICE)
        if number not in launches:
            launches[number] = filled_job(problem).launch
        times = [
            device_us(launches[number]),
            wall_us(lambda: cuda.plan(load_LE, problem.topology, problem.how)),  # noqa: B023
        ]
        print(json.dumps(times), flush=True)


if __name__ == "__main__":
    _serve()
