"""What the wire costs: Place and PlaceStream on loopback, server in a process of its own."""

from __future__ import annotations

import re
import time
import urllib.request
from statistics import median, quantiles

import numpy as np

from tests.bench.loads import Loads, realistic, trace
from tests.bench.tables import print_table
from tests.servers import ServerProcess, server_process
from trimtab_client import Client, MoveBudget, Placement, SolverOptions, Topology

CALLS = 100
STREAMED = 200


def run(repeats: int) -> None:
    """Print the latency of Place beyond the solver, and messages of PlaceStream."""
    del repeats
    problems = {
        "24 x 32 -> 40 / 8": (trace("gptoss20b_phases")[0], Topology(40, 8)),
        "58 x 256 -> 288 / 32": (realistic(), Topology(288, 32)),
    }
    with server_process() as server, Client(server.address) as client:
        places = [_place(server, client, name, *problem) for name, problem in problems.items()]
        streams = [_stream(client, name, *problem) for name, problem in problems.items()]
    columns = ["load", "p50 ms", "p99 ms", "solver p50 ms", "beyond the solver p50 ms"]
    print_table(f"Place, effort fast, {CALLS} calls, one after another", columns, places)
    columns = ["load", "in flight", "messages/s"]
    print_table(f"PlaceStream, improve by <= 4 moves a layer, {STREAMED} loads", columns, streams)


def _place(
    server: ServerProcess, client: Client, name: str, load: Loads, topology: Topology
) -> list[str]:
    options = SolverOptions(effort="fast")
    client.place(load, topology, options=options)
    latencies, solving = [], []
    for _ in range(CALLS):
        before = _solver_seconds(server)
        start = time.perf_counter()
        client.place(load, topology, options=options)
        latencies.append((time.perf_counter() - start) * 1e3)
        solving.append((_solver_seconds(server) - before) * 1e3)
    beyond = [total - part for total, part in zip(latencies, solving, strict=True)]
    figures = [median(latencies), quantiles(latencies, n=100)[98], median(solving), median(beyond)]
    return [name, *(f"{figure:.2f}" for figure in figures)]


def _stream(client: Client, name: str, load: Loads, topology: Topology) -> list[str]:
    layers, experts = load.shape
    current = Placement.untouched(layers, experts, topology.num_replicas, topology.num_gpus)
    rng = np.random.default_rng(0)
    loads = [load * rng.uniform(0.9, 1.1, load.shape) for _ in range(STREAMED)]
    budget = MoveBudget(max_moves_per_layer=4)
    start = time.perf_counter()
    for item in client.place_stream(loads, topology, current=current, budget=budget):
        item.unwrap()
    return [name, "8", f"{STREAMED / (time.perf_counter() - start):.1f}"]


def _solver_seconds(server: ServerProcess) -> float:
    """Time spent in the solver's stages so far, by the server's own metrics."""
    with urllib.request.urlopen(f"http://{server.metrics_address}/metrics") as page:
        text = page.read().decode()
    sums = re.findall(r"^trimtab_solver_stage_duration_seconds_sum\S* (\S+)$", text, re.MULTILINE)
    return sum(map(float, sums))
