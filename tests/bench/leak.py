"""Checks that many solves leak no memory, threads or files, in this process and in a server."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple

import torch

from tests.bench.loads import drifted
from tests.bench.options import LimitError, Options
from tests.bench.planners import open_backend
from tests.bench.serving import servers
from tests.bench.tables import print_table
from tests.servers import server_process
from trimtab_client import Client, MoveBudget, SolverOptions
from trimtab_client import Topology as ClientTopology
from trimtab_server.domain.topology import Topology
from trimtab_server.solver import Backend, Budget, improve, pack, place, settings_for

CALLS, WARM_UP = 10_000, 1_000
MAX_MIB = 8.0
MAX_THREADS = 2
"""Growth of resident memory and of threads that passes, since allocators still vary a little."""

SHAPES = ((24, 32, Topology(40, 8)), (16, 64, Topology(96, 8, 2, 4)))

CAPTION = f"""After {WARM_UP} calls to warm up: place fast, balanced, aligned and within a budget,
improve, and pack, in turn, on 24 x 32 -> 40 / 8 and on 16 x 64 -> 96 / 8 in 4 groups on 2 nodes;
half of the calls from one thread, half from two at once. At most {MAX_MIB:.0f} MiB of growth
passes."""

Call = Callable[[], object]


class Held(NamedTuple):
    """The resources of a process."""

    mib: float
    gpu_mib: float
    threads: int
    files: int

    @classmethod
    def by(cls, pid: int) -> Held:
        """Resident memory, threads and open files of a process, from Linux.

        GPU memory is what torch reserved in this process; 0 for other processes.
        """
        process = Path("/proc", str(pid))
        pages = int((process / "statm").read_text().split()[1])
        threads, files = (len([*(process / name).iterdir()]) for name in ("task", "fd"))
        mib = pages * os.sysconf("SC_PAGE_SIZE") / 2**20
        on_gpu = pid == os.getpid() and torch.cuda.is_initialized()
        gpu_mib = torch.cuda.memory_reserved() / 2**20 if on_gpu else 0.0
        return cls(mib, gpu_mib, threads, files)

    def grown(self, after: Held) -> float:
        """The growth of the host's or of the GPU's memory in MiB, whichever is larger."""
        return max(after.mib - self.mib, after.gpu_mib - self.gpu_mib)


def run(options: Options) -> None:
    """Print the table; raises LimitError if something grew too much."""
    calls, warm_up = (80, 40) if options.quick else (CALLS, WARM_UP)
    rows = [*_in_process(options, calls, warm_up), *_served(options, calls, warm_up)]
    columns = ["what", "calls", "MiB", "after", "growth"]
    columns += ["GPU MiB", "after", "threads", "after", "files", "after"]
    cells = [
        [
            what,
            str(calls),
            *(f"{mib:.1f}" for mib in (before.mib, after.mib, after.mib - before.mib)),
            *(f"{mib:.1f}" for mib in (before.gpu_mib, after.gpu_mib)),
            *map(str, (before.threads, after.threads, before.files, after.files)),
        ]
        for what, before, after in rows
    ]
    print_table("Leaks", columns, cells, CAPTION)
    grown = [what for what, before, after in rows if before.grown(after) > MAX_MIB]
    if grown:
        raise LimitError(f"grew by more than {MAX_MIB:.0f} MiB: {', '.join(grown)}")
    more = [what for what, before, after in rows if after.threads > before.threads + MAX_THREADS]
    if more:
        raise LimitError(f"started more than {MAX_THREADS} threads more: {', '.join(more)}")


def _in_process(options: Options, calls: int, warm_up: int) -> list[tuple[str, Held, Held]]:
    rows = []
    for name in options.backends or ("auto",):
        backend = open_backend(name)
        if backend is not None:
            work = [call for shape in SHAPES for call in _solves(backend, *shape)]
            what = f"solver in this process, {backend.name}"
            rows.append((what, *_watched([os.getpid()], work, calls, warm_up)[0]))
    return rows


def _served(options: Options, calls: int, warm_up: int) -> list[tuple[str, Held, Held]]:
    rows = []
    for served in servers(options):
        with server_process(*served.flags) as server, Client(server.address) as client:
            work = [call for shape in SHAPES for call in _requests(client, *shape)]
            pids = [server.process.pid, os.getpid()]
            its, own = _watched(pids, work, calls, warm_up)
        rows += [(f"server, {served.name}", *its), (f"client of server, {served.name}", *own)]
    return rows


def _watched(
    pids: Sequence[int], work: Sequence[Call], calls: int, warm_up: int
) -> list[tuple[Held, Held]]:
    """The resources of each process before and after the calls."""
    # The same two threads throughout, since the fixed cost of a thread is not a leak.
    with ThreadPoolExecutor(2) as pool:
        _carry_out(work, warm_up, pool)
        before = _held(pids)
        _carry_out(work, calls, pool)
        after = _held(pids)
    return list(zip(before, after, strict=True))


def _held(pids: Sequence[int]) -> list[Held]:
    gc.collect()
    return [Held.by(pid) for pid in pids]


def _carry_out(work: Sequence[Call], calls: int, pool: ThreadPoolExecutor) -> None:
    """Half of the calls here, then a quarter on each of two threads."""
    _in_turn(work, calls - 2 * (calls // 4))
    # With different offsets, so that the two threads solve different problems at once.
    halves = [work, [*work[3:], *work[:3]]]
    for half in [pool.submit(_in_turn, half, calls // 4) for half in halves]:
        half.result()


def _in_turn(work: Sequence[Call], calls: int) -> None:
    for call in islice(cycle(work), calls):
        call()


def _solves(backend: Backend, layers: int, experts: int, topology: Topology) -> list[Call]:
    before, load = map(torch.from_numpy, drifted(layers, experts))
    start_LR = place(before, topology, effort="fast", backend=backend).phy2log
    gpus, nodes, groups = topology.num_gpus, topology.num_nodes, topology.num_groups
    budget = Budget(max_moves_per_layer=4)
    return [
        lambda: place(load, topology, effort="fast", backend=backend),
        lambda: improve(
            start_LR,
            load,
            gpus,
            num_nodes=nodes,
            num_groups=groups,
            max_moves_per_layer=4,
            backend=backend,
        ),
        lambda: place(load, topology, effort="balanced", backend=backend),
        lambda: pack(load, gpus, settings=settings_for("fast"), backend=backend),
        lambda: place(load, topology, current=start_LR, budget=budget, backend=backend),
        lambda: place(load, topology, current=start_LR, effort="fast", backend=backend),
    ]


def _requests(client: Client, layers: int, experts: int, topology: Topology) -> list[Call]:
    before, load = drifted(layers, experts)
    wanted = ClientTopology(**vars(topology))
    fast, balanced = SolverOptions(effort="fast"), SolverOptions(effort="balanced")
    current = client.place(before, wanted, options=fast).placement
    budget = MoveBudget(max_moves_per_layer=4)
    return [
        lambda: client.place(load, wanted, options=fast),
        lambda: client.place(load, wanted, current=current, budget=budget),
        lambda: client.place(load, wanted, options=balanced),
        lambda: client.pack(load, topology.num_gpus, options=fast),
        lambda: client.place(load, wanted, current=current, options=fast),
    ]
