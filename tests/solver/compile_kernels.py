"""Compiles the cuda backend's kernels for a GPU that this machine need not have; launches nothing.

`python -m tests.solver.compile_kernels TARGET PART PARTS all` prints a JSON object for each kernel
of one part: name, constants, registers of a thread, bytes of a thread's stack, bytes of shared
memory of a program. With `first` instead of `all`, each kernel is compiled for one size of models
only. Triton's wheel contains all the tools, ptxas included. The project's own jobs are made on the
CPU and launched under a driver that only names the target, so that each kernel is compiled with
the very arguments of a launch.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from trimtab_server.domain.topology import Topology
from trimtab_server.solver.backends.cuda.jobs import Job, PackJob, PlanJob
from trimtab_server.solver.backends.cuda.shapes import Packs, Plan
from trimtab_server.solver.backends.cuda.warps import Warps
from trimtab_server.solver.settings import Settings

_CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
_FEW, _MANY = Settings(16, None, 4), Settings(16, None, 400)
_PLANS = (
    (Topology(288, 32), 256),
    (Topology(288, 72), 256),
    # As many slots as `refine` unrolls; as many packs as kernels take.
    (Topology(512, 32), 256),
    (Topology(1024, 1024), 512),
    # Groups on nodes: all pairings are tried; groups are packed.
    (Topology(288, 32, 4, 8), 256),
    (Topology(288, 32, 4, 16), 256),
    (Topology(1024, 512), 256),
    (Topology(512, 256), 256),
)


def jobs() -> Iterator[Job]:
    """Jobs of real sizes that together launch every kernel, with few starts and with many."""
    cpu, warps = torch.device("cpu"), Warps()
    for topology, experts in _PLANS:
        yield PlanJob(Plan.of(4, experts, topology, _FEW), _FEW, cpu, warps)
    for groups, settings in ((0, _FEW), (288, _MANY)):
        yield PackJob(Packs.of(4, 288, 32, groups, settings), settings, cpu, warps)


class _NoDevice:
    """The part of Triton's driver that compiling needs."""

    def __init__(self, target: int) -> None:
        self._target = target

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self._target, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, _device: int | None = None) -> int:
        return 0


def main() -> None:
    """Compile one part of the kernels, and print the resources of each."""
    target, part, parts = map(int, sys.argv[1:4])
    each_once = sys.argv[4] == "first"
    driver.set_active(_NoDevice(target))
    launch, seen = JITFunction.run, set[str]()

    def compile_only(self: Any, *arguments: Any, grid: Any, warmup: bool, **constants: Any) -> None:
        name = self.fn.__name__ if each_once else f"{self.fn.__name__} {constants}"
        if name not in seen:
            seen.add(name)
            if len(seen) % parts == part:
                kernel = launch(self, *arguments, grid=grid, warmup=True, **constants)
                print(json.dumps(_described(self.fn.__name__, constants, kernel)), flush=True)

    JITFunction.run = compile_only
    for job in jobs():
        job.launch()


def _described(name: str, constants: dict[str, Any], kernel: Any) -> dict[str, Any]:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(kernel.asm["cubin"])
        dump = [_CUOBJDUMP, "-res-usage", file.name]
        usage = subprocess.run(dump, capture_output=True, text=True, check=True).stdout
    registers, stack = (int(re.findall(rf"{what}:(\d+)", usage)[0]) for what in ("REG", "STACK"))
    return {
        "kernel": name,
        "constants": constants,
        "registers": registers,
        "stack": stack,
        "shared": kernel.metadata.shared,
    }


if __name__ == "__main__":
    main()
