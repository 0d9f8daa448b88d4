"""Every kernel of the cuda backend compiles for real GPUs; none is needed for that.

The other tests run them in Triton's interpreter, which accepts much that the compiler refuses.
TRIMTAB_GPU_TARGETS names the compute capabilities to compile for, without the point; CI compiles
for all of 75,80,90,100, and for all sizes of models. By default each kernel is compiled once.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton")

TARGETS = os.environ.get("TRIMTAB_GPU_TARGETS", "90").split(",")
SIZES = "all" if "TRIMTAB_GPU_TARGETS" in os.environ else "first"

MAX_STACK = {"refine": 48, "deal": 24}
"""Bytes of stack for each thread, 0 for kernels not named: more means that values no longer fit
into registers. With Triton 3.7.1 the largest are 40 and 16 (7.5, 512 packs; 10.0, 1,024 packs);
with one warp for any number of packs, `deal` had 352 (9.0, 1,024 packs)."""

MAX_SHARED = 12 << 10
"""Bytes of shared memory for each program: `order` needs 8 KiB at 1,024 items. GPUs since 7.5 have
64 KiB for programs."""


def kernels() -> set[str]:
    """The names of all kernels that jobs launch, read from the backend's sources."""
    import trimtab_server.solver.backends.cuda as package

    source = "".join(path.read_text() for path in Path(package.__path__[0]).glob("*.py"))
    return set(re.findall(r"(\w+)\[[\w.]+,\]\(", source))


def compiled(target: str, cache: Path) -> list[dict[str, Any]]:
    """Resources of each kernel, as compiled; as many processes as cores share the work."""
    environment = {**os.environ, "TRITON_CACHE_DIR": str(cache)}
    # In this process Triton interprets kernels.
    environment.pop("TRITON_INTERPRET", None)
    parts = min(4, len(os.sched_getaffinity(0)))
    command = [sys.executable, "-m", "tests.solver.compile_kernels"]
    children = [
        subprocess.Popen(
            [*command, target, str(part), str(parts), SIZES],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for part in range(parts)
    ]
    lines = []
    for child in children:
        output, errors = child.communicate(timeout=600)
        assert child.returncode == 0, errors[-4000:]
        lines += output.splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.slow
@pytest.mark.concurrent
@pytest.mark.parametrize("target", TARGETS)
def test_every_kernel_compiles_and_fits_into_registers(target: str, tmp_path: Path) -> None:
    found = compiled(target, tmp_path)
    assert {row["kernel"] for row in found} == kernels()
    for row in found:
        assert row["stack"] <= MAX_STACK.get(row["kernel"], 0), row
        assert row["shared"] <= MAX_SHARED, row
