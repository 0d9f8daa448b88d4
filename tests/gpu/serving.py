"""A server on the GPU: from its start to SERVING, and `Place` over loopback."""

from __future__ import annotations

import importlib
import time
import urllib.request
from statistics import median

from tests.bench.loads import realistic
from tests.bench.tables import print_table
from tests.servers import server_process
from trimtab_client import Client, SolverOptions, Topology

NEEDED = ["grpc_health.v1", "grpc_reflection.v1alpha", "prometheus_client", "structlog"]


def run() -> None:
    """Start one, and time calls of each effort once its kernels are compiled.

    Raises:
        ImportError: a package is missing that the server's own process would need.
    """
    for package in NEEDED:
        importlib.import_module(package)
    start = time.perf_counter()
    with server_process("--device", "cuda") as server, Client(server.address) as client:
        ready = time.perf_counter() - start
        rows = [
            [f"{ready:.1f}", effort, *_calls(client, server.metrics_address, effort)]
            for effort in ("fast", "balanced")
        ]
    columns = ["start to SERVING s", "effort", "kernels ready s", "Place 58 x 256 p50 ms"]
    print_table("Server on the GPU", columns, rows)


def _calls(client: Client, metrics: str, effort: str) -> tuple[str, str]:
    topology, options = Topology(288, 32), SolverOptions(effort=effort)
    load, took = realistic(), []
    began, cold = time.perf_counter(), -1.0
    # The host answers until the kernels for this shape have been compiled.
    while cold != (cold := _cold_requests(metrics)):
        client.place(load, topology, options=options)
        time.sleep(1)
    ready = time.perf_counter() - began
    for _ in range(50):
        began = time.perf_counter()
        client.place(load, topology, options=options)
        took.append((time.perf_counter() - began) * 1e3)
    return f"{ready:.1f}", f"{median(took):.2f}"


def _cold_requests(metrics: str) -> float:
    with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=10) as page:
        lines = page.read().decode().splitlines()
    prefix = 'trimtab_backend_fallbacks_total{backend="cuda",reason="cold"}'
    return sum(float(line.split()[-1]) for line in lines if line.startswith(prefix))
