"""Times work on the device."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch

from tests.gpu.problems import Problem
from tests.gpu.surroundings import DEVICE, REHEARSAL
from trimtab_server.solver.backends.cuda import jobs
from trimtab_server.solver.backends.cuda.jobs import PlanJob
from trimtab_server.solver.backends.cuda.shapes import Plan

_REPEATS = 20


def filled_job(problem: Problem, **warps: int) -> PlanJob:
    """The job of a problem, filled with its load; `warps` overrides the number of warps."""
    plan = Plan.of(problem.layers, problem.experts, problem.topology, problem.how)
    # Accessed through `jobs`, where older builds have it too.
    job = PlanJob(plan, problem.how, DEVICE, jobs.Warps(**warps))
    job.inputs[0].copy_(problem.load())
    return job


def device_us(launch: Callable[[], None]) -> float:
    """Median microseconds on the device of the work that `launch` queues, replayed as a graph."""
    if REHEARSAL:
        began = time.perf_counter()
        launch()
        return (time.perf_counter() - began) * 1e6
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
        for _ in range(_REPEATS):
            before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            before.record(stream)
            graph.replay()
            after.record(stream)
            stream.synchronize()
            took.append(before.elapsed_time(after) * 1e3)
    return median(took)


def wall_us(call: Callable[[], object]) -> float:
    """Median microseconds of a call, after one call to warm up."""
    repeats = 1 if REHEARSAL else 50
    took = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        call()
        if not REHEARSAL:
            torch.cuda.synchronize()
        took.append((time.perf_counter() - began) * 1e6)
    return median(took[1:])
