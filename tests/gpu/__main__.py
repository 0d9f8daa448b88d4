"""Check on a CUDA device that answers equal the reference's, and time them. One call does all.

Prints Markdown for tests/bench/RESULTS.md; exits with 1 if any answer differs. Takes
about eight minutes, most of them to compile kernels for many shapes.
"""

from __future__ import annotations

import importlib.metadata
import sys
import time
import traceback
from collections.abc import Callable

import torch
from torch import Tensor

from tests.bench.loads import realistic, trace
from tests.bench.tables import machine, print_table, timed
from tests.gpu import agreement, timing
from trimtab_server.domain.topology import Topology
from trimtab_server.solver import Budget, Settings, place, settings_for

WORKERS = 8
"""Processes that share the cases of `agreement`: they compile at the same time."""

PROBLEMS = {
    "realistic 58 x 256, 288 / 32": (realistic(), Topology(288, 32)),
    "realistic 58 x 256, 288 / 72": (realistic(), Topology(288, 72)),
    "hierarchical 288 / 32, 8 groups, 4 nodes": (realistic(), Topology(288, 32, 4, 8)),
    "gptoss20b 40 / 8": (trace("gptoss20b_phases")[0], Topology(40, 8)),
    "odd 7 x 13, 21 / 7": (realistic(7, 13, 1, seed=1, tokens=50), Topology(21, 7)),
}


def main() -> int:
    """Run everything; the number of answers that differ decides the exit code."""
    if not torch.cuda.is_available():
        print("no CUDA device here", file=sys.stderr)
        return 1
    print(f"Measured {machine()}, {torch.cuda.get_device_name()}.")
    print(f"Triton {importlib.metadata.version('triton')}.")
    failed = [section for section, run in SECTIONS.items() if not _passed(section, run)]
    print(f"\nFailed: {', '.join(failed)}." if failed else "\nAll passed.")
    return int(bool(failed))


def _passed(section: str, run: Callable[[], object]) -> bool:
    """Run one section; whatever happens, the next ones are run too."""
    began = time.perf_counter()
    try:
        different = run()
    except ImportError as error:
        print(f"\n{section} skipped: {error}", flush=True)
        return True
    except Exception:  # noqa: BLE001 - a machine with a GPU is rare: measure what can be
        print(f"\n{section} failed:\n{traceback.format_exc()}", flush=True)
        return False
    print(f"\n({section}: {time.perf_counter() - began:.0f} s)", flush=True)
    return not different


def _agreement() -> int:
    return agreement.run(WORKERS, 100)


def _places() -> int:
    rows = [_compare(f"{name}, {kind}", call) for name, kind, call in _calls()]
    print_table("`place` on the CPU and on the GPU", ["what", "equal", "CPU ms", "GPU ms"], rows)
    return sum(row[1] != "yes" for row in rows)


def _serving() -> None:
    # Imported here: a server needs packages that a machine with a GPU may lack.
    from tests.gpu import serving

    serving.run()


def _calls() -> list[tuple[str, str, Callable[[torch.device], Tensor]]]:
    calls = []
    for name, (load, topology) in PROBLEMS.items():
        load_LE = torch.from_numpy(load)
        later_LE = load_LE.roll(1, 0)
        current = place(load_LE, topology, settings=settings_for("fast")).phy2log

        def full(
            device: torch.device, load_LE: Tensor = load_LE, topology: Topology = topology
        ) -> Tensor:
            settings = Settings(8, None, 2)
            return place(load_LE.to(device), topology, settings=settings).phy2log

        def better(
            device: torch.device,
            load_LE: Tensor = later_LE,
            topology: Topology = topology,
            current: Tensor = current,
        ) -> Tensor:
            return place(
                load_LE.to(device),
                topology,
                current=current,
                budget=Budget(max_moves_per_layer=4),
                settings=settings_for("fast"),
            ).phy2log

        calls += [(name, "full plan", full), (name, "improve", better)]
    return calls


def _compare(name: str, call: Callable[[torch.device], Tensor]) -> list[str]:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")

    def finished() -> None:
        call(gpu)
        torch.cuda.synchronize()

    equal = torch.equal(call(cpu), call(gpu).cpu())
    times = timed(lambda: call(cpu), 3), timed(finished, 3)
    return [name, "yes" if equal else "NO", *(f"{took:.1f}" for took in times)]


SECTIONS: dict[str, Callable[[], object]] = {
    "agreement": _agreement,
    "timing": timing.run,
    "phases": timing.phases,
    "place": _places,
    "serving": _serving,
    "warps": lambda: timing.sweep(120),
}
"""What is run, the most wanted first: a run on such a machine is cut off after ten minutes."""


if __name__ == "__main__":
    sys.exit(main())
