"""The solver on a busy host: each call with all threads and with one thread."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from statistics import median, quantiles
from typing import NamedTuple

import torch
from torch import Tensor

from tests.bench.loads import drifted
from tests.bench.options import Options
from tests.bench.planners import open_backend
from tests.bench.problems import shape_of
from tests.bench.tables import in_ms, once, print_table
from trimtab_server.domain.topology import Topology
from trimtab_server.solver import (
    Backend,
    Budget,
    Effort,
    align,
    balanced_packing,
    evaluate,
    improve,
    place,
    rebalance_experts,
    rebalance_phy2log,
    replicate_experts,
    settings_for,
)
from trimtab_server.solver.improve import DEFAULT_TOP_K

TURNS = 20
"""Calls of each kind for each repeat, since the other work of a machine varies."""
SETTLE_S = 0.3
"""Time after which the solver has measured how many cores are free."""
MOVES = 4
SHAPE, TINY = (58, 256, Topology(288, 32)), (3, 16, Topology(20, 4))

CAPTION = f"""Burnt: beside processes that compute all the time, one fewer than there are cores.
Each call as usual, and with torch.set_num_threads(1), in turns with all others: medians, and the
shortest time of the slowest tenth. "/ 1 thread": the median divided by that of the same call on one
thread. "/ plan": divided by that of the plan alone, `Backend.plan` with the same effort.
Improvements make at most {MOVES} moves a layer; "in force": given the placement in force, from
which few experts move."""


class Work(NamedTuple):
    """The inputs of the calls."""

    backend: Backend
    load_LE: Tensor
    start_LR: Tensor
    topology: Topology


Calls = dict[str, Callable[[], object]]
Times = Mapping[str, list[float]]

EFFORTS: tuple[Effort, ...] = ("fast", "balanced")


def run(options: Options) -> None:
    """Print the table."""
    backend = open_backend(options.backend)
    if backend is None:
        return
    layers, experts, topology = TINY if options.quick else SHAPE
    calls = _calls(backend, layers, experts, topology)
    turns = 2 if options.quick else TURNS * options.repeats
    cores = 2 if options.quick else os.cpu_count() or 2
    quiet = _measured(calls, turns)
    with _burnt(cores - 1):
        burnt = _measured(calls, turns)
    columns = ["call"]
    for when in ("quiet", "burnt"):
        columns += [f"{when} ms", "slowest tenth", "1 thread ms", "slowest tenth"]
        columns += ["/ 1 thread", "/ plan"]
    title = f"Beside busy cores, {shape_of(drifted(layers, experts)[0], topology)}, {backend.name}"
    rows = ([call, *_cells(call, quiet), *_cells(call, burnt)] for call in calls)
    print_table(title, columns, rows, CAPTION)


def _calls(backend: Backend, layers: int, experts: int, topology: Topology) -> Calls:
    before, load = map(torch.from_numpy, drifted(layers, experts))
    start_LR = place(before, topology, effort="fast", backend=backend).phy2log
    work = Work(backend, load, start_LR, topology)
    return {**_planning(work, "fast"), **_planning(work, "balanced"), **_others(work)}


def _planning(work: Work, effort: Effort) -> Calls:
    backend, load, start_LR, topology = work
    how, sizes = settings_for(effort), (topology.num_replicas, 1, 1, topology.num_gpus)
    chosen = {"effort": effort, "backend": backend}
    return {
        f"plan, {effort}": lambda: backend.plan(load, topology, how),
        f"rebalance_experts, {effort}": lambda: rebalance_experts(load, *sizes, **chosen),
        f"rebalance_phy2log, {effort}": lambda: rebalance_phy2log(load, *sizes, **chosen),
        f"rebalance_phy2log in force, {effort}": lambda: rebalance_phy2log(
            load, *sizes, start_LR, **chosen
        ),
        f"place, {effort}": lambda: place(load, topology, **chosen),
    }


def _others(work: Work) -> Calls:
    backend, load, start_LR, topology = work
    gpus, budget = topology.num_gpus, Budget(max_moves_per_layer=MOVES)
    on = {"backend": backend}
    return {
        "place within a budget": lambda: place(
            load, topology, current=start_LR, budget=budget, **on
        ),
        "Backend.improve": lambda: backend.improve(start_LR, load, topology, budget, DEFAULT_TOP_K),
        "improve": lambda: improve(start_LR, load, gpus, max_moves_per_layer=MOVES, **on),
        "evaluate": lambda: evaluate(start_LR, load, gpus, **on),
        "align": lambda: align(start_LR.flip(0), start_LR, gpus, **on),
        "balanced_packing": lambda: balanced_packing(load, gpus, **on),
        "replicate_experts": lambda: replicate_experts(load, topology.num_replicas, **on),
    }


def _measured(calls: Calls, turns: int) -> tuple[Times, Times]:
    """Milliseconds of each call as usual, and on one thread."""
    threads = torch.get_num_threads()
    times: dict[int, dict[str, list[float]]] = {
        number: {name: [] for name in calls} for number in (threads, 1)
    }
    _settle(calls)
    try:
        for turn in range(turns):
            for name, call in calls.items():
                # The second call of a pair has warmer caches, so the order alternates.
                for number in (threads, 1) if turn % 2 else (1, threads):
                    torch.set_num_threads(number)
                    times[number][name].append(once(call))
    finally:
        torch.set_num_threads(threads)
    return times[threads], times[1]


def _settle(calls: Calls) -> None:
    """Call each once, and repeat that until the solver has measured how many cores are free."""
    end = time.perf_counter() + SETTLE_S
    for call in calls.values():
        call()
    while time.perf_counter() < end:
        next(iter(calls.values()))()


def _cells(call: str, measured: tuple[Times, Times]) -> Iterator[str]:
    for times in (taken[call] for taken in measured):
        yield in_ms(median(times))
        yield in_ms(quantiles(times, n=10)[-1])
    usual, alone = (median(taken[call]) for taken in measured)
    yield f"{usual / alone:.2f}"
    plan = f"plan, {call.rpartition(', ')[2]}"
    shows = call.startswith("rebalance")
    yield f"{usual / median(measured[0][plan]):.2f}" if shows else "-"


@contextmanager
def _burnt(cores: int) -> Iterator[None]:
    """Run processes that compute all the time."""
    with ExitStack() as stack:
        for _ in range(cores):
            process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            stack.callback(process.wait)
            stack.callback(process.kill)
        yield
