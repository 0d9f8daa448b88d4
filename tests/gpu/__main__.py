"""Check on a CUDA device that answers equal the CPU's, and time them. One call does all.

Prints Markdown for tests/bench/RESULTS.md; exits with 1 if any answer differs.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor

from tests.bench.loads import realistic, trace
from tests.bench.tables import machine, print_table, timed
from tests.servers import server_process
from trimtab_client import Client, SolverOptions
from trimtab_client import Topology as ClientTopology
from trimtab_server.domain.topology import Topology
from trimtab_server.solver import Budget, Settings, place, settings_for

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
    rows = [_compare(f"{name}, {kind}", call) for name, kind, call in _calls()]
    print_table("Answers on the CPU and on the GPU", ["what", "equal", "CPU ms", "GPU ms"], rows)
    _serve()
    return int(any(row[1] != "yes" for row in rows))


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


def _serve() -> None:
    """Start a server on the GPU and time Place over loopback."""
    start = time.perf_counter()
    with server_process("--device", "cuda") as server, Client(server.address) as client:
        ready = time.perf_counter() - start
        topology, options = ClientTopology(288, 32), SolverOptions(effort="fast")
        load, took = realistic(), []
        for _ in range(20):
            began = time.perf_counter()
            client.place(load, topology, options=options)
            took.append((time.perf_counter() - began) * 1e3)
    row = [f"{ready:.1f}", f"{median(took):.1f}"]
    print_table("Server on the GPU", ["start to SERVING s", "Place 58 x 256 fast p50 ms"], [row])


if __name__ == "__main__":
    sys.exit(main())
