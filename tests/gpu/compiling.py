"""Compiles the kernels that other sections time, in as many processes as there are cores.

`python -m tests.gpu.compiling PART PARTS` is one of these processes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

import torch

from tests.gpu.places import placements
from tests.gpu.problems import PROBLEMS
from tests.gpu.report import Report
from tests.gpu.surroundings import DEVICE, REHEARSAL, not_passed_on
from trimtab_server.solver.backends.cuda.backend import Cuda


def run(report: Report, beside: str | None) -> bool:
    """Whether all kernels compiled, for this build and for the one beside it."""
    paths = {"this build": os.environ["PYTHONPATH"]}
    if beside is not None:
        paths["the build beside it"] = beside
    rows = [(name, *_all_parts(path)) for name, path in paths.items()]
    report.table("Compiled in parallel, from nothing", ["what", "s", "without error"], rows)
    return all(row[2] == "yes" for row in rows)


def _all_parts(path: str) -> tuple[float, str]:
    began = time.perf_counter()
    parts = 1 if REHEARSAL else min(len(PROBLEMS), os.cpu_count() or 1)
    children = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.gpu.compiling", str(part), str(parts)],
            env={**os.environ, "PYTHONPATH": path},
        )
        for part in range(-1, parts)
    ]
    failed = sum(child.wait() != 0 for child in children)
    return time.perf_counter() - began, f"no, {failed} parts failed" if failed else "yes"


def _compile(part: int, parts: int) -> None:
    if part < 0:
        # The host's part of each request is compiled too, and kept on disk.
        for _, call in placements(torch.device("cpu"), "cpu"):
            call()
        return
    cuda = Cuda(DEVICE, not_passed_on)
    for problem in PROBLEMS[part::parts]:
        cuda.plan(problem.load(), problem.topology, problem.how)


if __name__ == "__main__":
    _compile(int(sys.argv[1]), int(sys.argv[2]))
