"""The cost of a session for its engine: `record` and `at_step_boundary`, on the engine's thread."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from statistics import median, quantiles

import numpy as np

from tests.bench.options import Options
from tests.bench.tables import print_table
from tests.servers import server_process
from trimtab_client import Placement, Topology, WorkerOptions, WorkerSession

CALLS = 20_000
SHAPES = ((24, 32, 40, 8), (58, 256, 288, 32))


def run(options: Options) -> None:
    """Print the time of each call."""
    calls, shapes = (20, SHAPES[:1]) if options.quick else (CALLS, SHAPES)
    columns = ["call", "counts", "p50 us", "p99 us"]
    caption = (
        f"{calls} calls, one after another, of a session that owns all GPUs and reports each "
        "second to a server on the same cores. The engine's own barrier returns at once here."
    )
    with server_process("--store", "memory") as server:
        rows = [row for shape in shapes for row in _rows(server.address, shape, calls)]
    print_table("What a session costs its engine", columns, rows, caption)


def _rows(address: str, shape: tuple[int, int, int, int], calls: int) -> list[list[object]]:
    layers, experts, slots, gpus = shape
    options = WorkerOptions(
        deployment=f"{layers} x {experts}",
        worker="worker",
        topology=Topology(num_replicas=slots, num_gpus=gpus),
        placement=Placement.untouched(layers, experts, slots, gpus),
        scope="local",
        bytes_per_expert=1,
    )
    rng = np.random.default_rng(0)
    by_expert = rng.poisson(100, (layers, experts))
    by_slot = rng.poisson(100, (layers, slots))
    step = itertools.count()
    with WorkerSession(
        address,
        options,
        on_offer=lambda _: True,
        on_abort=lambda _: None,
        barrier=lambda values: values,
    ) as session:

        def boundary() -> None:
            session.at_step_boundary(next(step))

        def record() -> None:
            session.record(by_expert, 0, 0)

        def record_slots() -> None:
            session.record(by_slot, 0, 0, per_slot=True)

        return [
            ["record, by expert", f"{layers} x {experts}", *_spread(record, calls)],
            ["record, by slot", f"{layers} x {slots}", *_spread(record_slots, calls)],
            ["at_step_boundary", f"{layers} x {experts}", *_spread(boundary, calls)],
        ]


def _spread(call: Callable[[], None], calls: int) -> list[str]:
    taken = []
    for _ in range(calls):
        start = time.perf_counter()
        call()
        taken.append((time.perf_counter() - start) * 1e6)
    return [f"{median(taken):.1f}", f"{quantiles(taken, n=100)[98]:.1f}"]
