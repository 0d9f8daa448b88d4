"""Times a server on the GPU: from its start to SERVING, and `Place` over loopback."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import time
import urllib.request
from collections.abc import Iterator
from statistics import median
from typing import TYPE_CHECKING

from tests.bench.loads import realistic
from tests.gpu.report import LeftOutError, Report
from tests.gpu.surroundings import DEVICE, REHEARSAL

if TYPE_CHECKING:
    from trimtab_client import Client

_NEEDED = [
    "google.rpc",
    "grpc_health",
    "grpc_reflection",
    "prometheus_client",
    "structlog",
    "uvloop",
]
_COLUMNS = ["start to SERVING s", "effort", "kernels ready s", "Place 58 x 256 p50 ms"]


def run(report: Report, _beside: str | None) -> bool:
    """Start a server, and time calls of each effort once their kernels are compiled."""
    missing = [name for name in _NEEDED if not _found(name)]
    if missing:
        raise LeftOutError(f"a server needs {', '.join(missing)}, which this machine lacks")
    if not list(importlib.metadata.distributions(name="trimtab-server")):
        raise LeftOutError("a server says its version, and trimtab is not installed here")
    report.table("A server on the device, over loopback", _COLUMNS, _rows())
    return True


def _found(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _rows() -> Iterator[list[object]]:
    from tests.servers import server_process
    from trimtab_client import Client

    start = time.perf_counter()
    with (
        server_process("--store", "memory", "--device", DEVICE.type) as server,
        Client(server.address) as client,
    ):
        ready = time.perf_counter() - start
        for effort in ("fast",) if REHEARSAL else ("fast", "balanced"):
            yield [ready, effort, *_calls(client, server.metrics_address, effort)]


def _calls(client: Client, metrics: str, effort: str) -> tuple[float, float]:
    from trimtab_client import SolverOptions, Topology

    topology, options = Topology(288, 32), SolverOptions(effort=effort)
    load, took = realistic(), []
    began, cold = time.perf_counter(), -1.0
    # The host answers until the kernels for this shape are compiled.
    while cold != (cold := _sum(metrics, "trimtab_backend_fallbacks_total", 'reason="cold"')):
        client.place(load, topology, options=options)
        time.sleep(1)
    ready = time.perf_counter() - began
    for _ in range(50):
        began = time.perf_counter()
        client.place(load, topology, options=options)
        took.append((time.perf_counter() - began) * 1e3)
    passed_on = _sum(metrics, "trimtab_backend_fallbacks_total", "")
    if passed_on != cold:
        raise RuntimeError(f"the host answered {passed_on - cold:.0f} requests for other reasons")
    return ready, median(took)


def _sum(metrics: str, name: str, label: str) -> float:
    """The sum of all series of a metric that have a label."""
    with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=10) as page:
        lines = page.read().decode().splitlines()
    values = (line.split()[-1] for line in lines if line.startswith(name) and label in line)
    return sum(float(value) for value in values)
