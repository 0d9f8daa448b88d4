"""Peak memory of one plan, in a process that does nothing else.

`python -m tests.bench.memory PLANNER PROBLEM [--quick]` prints MiB on the host, and
on the GPU.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import torch

from tests.bench.loads import realistic
from tests.bench.options import Options
from tests.bench.planners import Planner, open_planner
from tests.bench.problems import Problem, problems
from trimtab_server.domain.topology import Topology

ROOT = Path(__file__).parents[2]


def peak_memory(planner: Planner, problem: Problem, options: Options) -> str:
    """Peak MiB of one plan in a new process; after "+", the same for torch's memory on the GPU.

    This is the highest resident size during the plan, minus the resident size after imports and a
    plan of 2 layers of 16 experts. So it leaves out memory that the process held before, and freed
    memory that was used again.
    """
    command = [sys.executable, "-m", "tests.bench.memory", planner.key, problem.name]
    done = subprocess.run(
        [*command, *(["--quick"] if options.quick else [])],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.splitlines()[-1] if done.returncode == 0 else "failed"


def main() -> None:
    """Measure one planner on one problem; the main function of the child process."""
    key, name = sys.argv[1:3]
    problem = next(p for p in problems(quick="--quick" in sys.argv) if p.name == name)
    planner = open_planner(key)
    grouped = problem.topology.num_parts > 1
    tiny = Topology(20, 4, 2, 4) if grouped else Topology(20, 4)
    planner.plan(torch.from_numpy(realistic(2, 16, 4)), tiny)
    load_LE = torch.from_numpy(problem.load)
    _reset_peaks()
    before = _resident("VmRSS")
    planner.plan(load_LE, problem.topology)
    grown = f"{max(0.0, _resident('VmHWM') - before):.1f}"
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        grown += f" + {torch.cuda.max_memory_allocated() / 2**20:.1f}"
    print(grown)


def _reset_peaks() -> None:
    # Not ru_maxrss, which includes the peaks of compiling, and of the parent process.
    Path("/proc/self/clear_refs").write_text("5")
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()


def _resident(what: str) -> float:
    """VmRSS, resident memory, or VmHWM, its highest value so far, in MiB."""
    status = Path("/proc/self/status").read_text()
    found = re.search(rf"^{what}:\s+(\d+) kB", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


if __name__ == "__main__":
    main()
