"""A server on the GPU: from its start to SERVING, and `Place` over loopback."""

from __future__ import annotations

import importlib
import time
from statistics import median

from tests.bench.loads import realistic
from tests.bench.tables import print_table
from tests.servers import server_process
from trimtab_client import Client, SolverOptions, Topology

NEEDED = ["grpc_health.v1", "grpc_reflection.v1alpha", "prometheus_client", "structlog"]


def run() -> None:
    """Start one, and time calls of each effort after a first that may compile.

    Raises:
        ImportError: a package is missing that the server's own process would need.
    """
    for package in NEEDED:
        importlib.import_module(package)
    start = time.perf_counter()
    with server_process("--device", "cuda") as server, Client(server.address) as client:
        ready = time.perf_counter() - start
        rows = [
            [f"{ready:.1f}", effort, *_calls(client, effort)] for effort in ("fast", "balanced")
        ]
    columns = ["start to SERVING s", "effort", "first Place ms", "Place 58 x 256 p50 ms"]
    print_table("Server on the GPU", columns, rows)


def _calls(client: Client, effort: str) -> tuple[str, str]:
    topology, options = Topology(288, 32), SolverOptions(effort=effort)
    load, took = realistic(), []
    for _ in range(30):
        began = time.perf_counter()
        client.place(load, topology, options=options)
        took.append((time.perf_counter() - began) * 1e3)
    return f"{took[0]:.1f}", f"{median(took[1:]):.2f}"
