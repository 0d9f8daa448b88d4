"""How long plans take on the device: whole, by kernel, and by number of warps."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from statistics import median

import torch

from tests.bench.loads import realistic
from tests.bench.tables import print_table, timed
from trimtab_server.domain.topology import Topology
from trimtab_server.solver.backends.cuda.backend import Cuda
from trimtab_server.solver.backends.cuda.jobs import PlanJob
from trimtab_server.solver.backends.cuda.shapes import Plan
from trimtab_server.solver.backends.cuda.starts import Warps
from trimtab_server.solver.settings import Settings

PROBLEMS = {
    "58 layers, 288 / 32, K 16, 32 restarts (goal 300 us)": (
        58,
        Topology(288, 32),
        Settings(16, None, 32),
    ),
    "58 layers, 288 / 72, K 16, 32 restarts (goal 600 us)": (
        58,
        Topology(288, 72),
        Settings(16, None, 32),
    ),
    "1000 layers, 288 / 32, K 16, 4 restarts (goal 2 ms)": (
        1000,
        Topology(288, 32),
        Settings(16, None, 4),
    ),
    "58 layers, 288 / 32, balanced": (58, Topology(288, 32), Settings(16, None, 4)),
    "58 layers, 288 / 32, fast": (58, Topology(288, 32), Settings(4, 20, 1)),
    "58 layers, 288 / 32, 4 nodes, 8 groups, balanced": (
        58,
        Topology(288, 32, 4, 8),
        Settings(16, None, 4),
    ),
}
_DEVICE = torch.device("cuda", 0)
_SWEPT = {"refine": (1, 2, 4), "deal": (1, 2, 4), "order": (1, 2, 4, 8), "row": (1, 2, 4, 8)}


def run() -> None:
    """Print whole plans: on the device, and as a caller on the host sees them."""
    columns = ["plan", "device us", "tensor on the device, wall us", "tensor on the host, wall us"]
    print_table("Plans on the device", [*columns, "first call s"], _plans())


def phases() -> None:
    """Print what each kernel adds to a plan."""
    columns = ["plan", "replicate", "+ order", "+ deal", "+ refine", "+ choose"]
    print_table("Device us up to and with each kernel", columns, _phases())


def sweep(seconds: float) -> None:
    """Print plans by the number of warps of one kernel, others as chosen."""
    columns = ["plan", "kernel", "warps", "device us"]
    print_table("Warps", columns, _sweep(time.monotonic() + seconds))


def _plans() -> Iterator[list[str]]:
    for name, (layers, topology, how) in PROBLEMS.items():
        cuda = Cuda(_DEVICE, _fail)
        load_LE = torch.from_numpy(realistic(layers))
        there_LE = load_LE.to(_DEVICE)
        began = time.perf_counter()
        cuda.plan(load_LE, topology, how)
        first = time.perf_counter() - began

        def on_device() -> None:
            cuda.plan(there_LE, topology, how)  # noqa: B023 - called at once
            torch.cuda.synchronize()

        def on_host() -> None:
            cuda.plan(load_LE, topology, how)  # noqa: B023 - called at once

        job = _job(layers, topology, how, Warps())
        yield [
            name,
            f"{_graph_us(job.launch):.0f}",
            f"{timed(on_device, 50) * 1e3:.0f}",
            f"{timed(on_host, 50) * 1e3:.0f}",
            f"{first:.1f}",
        ]


def _phases() -> Iterator[list[str]]:
    for name, (layers, topology, how) in PROBLEMS.items():
        if topology.num_parts > 1:
            continue
        job = _job(layers, topology, how, Warps())
        starts = job._starts
        steps: list[Callable[[], None]] = [
            job.launch_replicate,
            lambda job=job: job._starts.launch_order(job._weight_XR, job._code_XR),
            starts.launch_deal,
            starts.launch_refine,
            job.launch_choose,
        ]
        yield [name, *(f"{_graph_us(_all(steps[: n + 1])):.0f}" for n in range(len(steps)))]


def _sweep(end: float) -> Iterator[list[str]]:
    for name, (layers, topology, how) in list(PROBLEMS.items())[:3]:
        for kernel, counts in _SWEPT.items():
            for warps in counts:
                if time.monotonic() > end:
                    yield [name, kernel, str(warps), "no time left"]
                    continue
                chosen = replace(Warps(), **{kernel: warps})
                job = _job(layers, topology, how, chosen)
                yield [name, kernel, str(warps), f"{_graph_us(job.launch):.0f}"]


def _job(layers: int, topology: Topology, how: Settings, warps: Warps) -> PlanJob:
    load_LE = torch.from_numpy(realistic(layers))
    job = PlanJob(Plan.of(layers, load_LE.shape[1], topology, how), how, _DEVICE, warps)
    job.inputs[0].copy_(load_LE)
    return job


def _all(steps: list[Callable[[], None]]) -> Callable[[], None]:
    def launch() -> None:
        for step in steps:
            step()

    return launch


def _graph_us(launch: Callable[[], None], repeats: int = 20) -> float:
    """Median microseconds of a replay on the device, between two events."""
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        launch()
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            launch()
        graph.replay()
        took = []
        for _ in range(repeats):
            before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            before.record(stream)
            graph.replay()
            after.record(stream)
            stream.synchronize()
            took.append(before.elapsed_time(after) * 1e3)
    return median(took)


def _fail(*told: str) -> None:
    raise AssertionError(told)
