"""The cost of the wire: Place and PlaceStream on loopback, with the server in its own process."""

from __future__ import annotations

import re
import time
import urllib.request
from statistics import median, quantiles
from typing import get_args

import numpy as np

from tests.bench.options import Options
from tests.bench.serving import Job, jobs, servers
from tests.bench.tables import in_ms, print_table
from tests.servers import ServerProcess, server_process
from trimtab_client import Client, MoveBudget, Placement, SolverOptions
from trimtab_server.solver import Effort

CALLS = 100
PATIENCE_S = 20.0
"""Time limit for these calls; slow calls are made less often."""
STREAMED = 200


def run(options: Options) -> None:
    """Print the latency of Place beyond the solver, and messages of PlaceStream."""
    calls, streamed = (3, 3) if options.quick else (CALLS, STREAMED)
    work = jobs(quick=options.quick)
    places, streams = [], []
    for served in servers(options):
        with server_process(*served.flags) as server, Client(server.address) as client:
            for job in work:
                for effort in get_args(Effort):
                    row = _place(server, client, job, effort, calls)
                    places.append([served.name, job.name, effort, *row])
                streams.append([served.name, job.name, "8", _stream(client, job, streamed)])
    columns = ["backend", "load", "effort", "calls", "p50 ms", "p99 ms"]
    columns += ["solver p50 ms", "beyond the solver p50 ms"]
    caption = (
        f"{calls} calls, or as many as end within {PATIENCE_S:.0f} s. The solver's part is the sum "
        "of its stages, by the server's own metrics."
    )
    print_table("Place, calls one after another", columns, places, caption)
    columns = ["backend", "load", "in flight", "messages/s"]
    print_table(f"PlaceStream, improve by <= 4 moves a layer, {streamed} loads", columns, streams)


def percentile_99(latencies: list[float]) -> str:
    """The 99th percentile, if there are enough calls for one."""
    return in_ms(quantiles(latencies, n=100)[98]) if len(latencies) >= 100 else "-"


def _place(
    server: ServerProcess, client: Client, job: Job, effort: Effort, calls: int
) -> list[str]:
    options = SolverOptions(effort=effort)

    def call() -> None:
        client.place(job.load, job.topology, options=options, timeout=120)

    call()
    latencies: list[float] = []
    solving: list[float] = []
    end = time.perf_counter() + PATIENCE_S
    while len(latencies) < calls and (start := time.perf_counter()) < end:
        before = _solver_seconds(server)
        start = time.perf_counter()
        call()
        latencies.append((time.perf_counter() - start) * 1e3)
        solving.append((_solver_seconds(server) - before) * 1e3)
    beyond = [total - part for total, part in zip(latencies, solving, strict=True)]
    middle, solver, rest = (in_ms(median(each)) for each in (latencies, solving, beyond))
    return [str(len(latencies)), middle, percentile_99(latencies), solver, rest]


def _stream(client: Client, job: Job, streamed: int) -> str:
    layers, experts = job.load.shape
    slots, gpus = job.topology.num_replicas, job.topology.num_gpus
    current = Placement.untouched(layers, experts, slots, gpus)
    rng = np.random.default_rng(0)
    loads = [job.load * rng.uniform(0.9, 1.1, job.load.shape) for _ in range(streamed)]
    budget = MoveBudget(max_moves_per_layer=4)
    start = time.perf_counter()
    for item in client.place_stream(loads, job.topology, current=current, budget=budget):
        item.unwrap()
    return f"{streamed / (time.perf_counter() - start):.1f}"


def _solver_seconds(server: ServerProcess) -> float:
    """Time spent in the solver's stages so far, by the server's own metrics."""
    with urllib.request.urlopen(f"http://{server.metrics_address}/metrics") as page:
        text = page.read().decode()
    sums = re.findall(r"^trimtab_solver_stage_duration_seconds_sum\S* (\S+)$", text, re.MULTILINE)
    return sum(map(float, sums))
