"""Place under many callers: latency and throughput, tasks of one process as callers."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from statistics import median

from tests.bench.options import Options
from tests.bench.rpc import percentile_99
from tests.bench.serving import Job, jobs, servers
from tests.bench.tables import in_ms, print_table
from tests.servers import server_process
from trimtab_client import AsyncClient, MoveBudget, SolverOptions

CALLERS = (1, 4, 16, 64)
WINDOW_S = 3.0
"""How long callers keep calling; calls that they began by then count."""
PATIENCE_S = 20.0
"""A combination is left out if one round of all callers would take longer."""

CAPTION = f"""Callers are tasks of one process with one AsyncClient; each sends its next call when
it has its answer, for {WINDOW_S:.0f} s. Latency is that of the caller: encoding, queueing behind
the others, solving, decoding. The server solves one request at a time, and callers and server share
this machine's cores. p99 from 100 calls on. "-": one round would take over {PATIENCE_S:.0f} s."""

Call = Callable[[], Awaitable[object]]


def run(options: Options) -> None:
    """Print the table."""
    window_s = 0.1 if options.quick else WINDOW_S
    callers = CALLERS[:2] if options.quick else CALLERS
    rows = []
    for served in servers(options):
        with server_process(*served.flags) as server:
            for job in jobs(quick=options.quick):
                measured = asyncio.run(_measure(server.address, job, callers, window_s))
                rows += [[served.name, job.name, *row] for row in measured]
    columns = ["backend", "load", "request", "callers", "calls", "p50 ms", "p99 ms", "calls/s"]
    print_table("Place, concurrent callers", columns, rows, CAPTION)


async def _measure(
    address: str, job: Job, callers: tuple[int, ...], window_s: float
) -> list[list[str]]:
    rows = []
    async with AsyncClient(address, timeout=math.inf) as client:
        async for name, call in _requests(client, job):
            await call()
            alone_s = 0.0
            for count in callers:
                cells = ["-"] * 4
                if alone_s * count <= PATIENCE_S:
                    start = time.perf_counter()
                    latencies = await _burst(call, count, window_s)
                    rate = len(latencies) / (time.perf_counter() - start)
                    alone_s = alone_s or median(latencies) / 1e3
                    middle, tail = in_ms(median(latencies)), percentile_99(latencies)
                    cells = [str(len(latencies)), middle, tail, f"{rate:.1f}"]
                rows.append([name, str(count), *cells])
    return rows


async def _requests(client: AsyncClient, job: Job) -> AsyncIterator[tuple[str, Call]]:
    fast, balanced = SolverOptions(effort="fast"), SolverOptions(effort="balanced")
    start = await client.place(job.before, job.topology, options=fast)
    budget = MoveBudget(max_moves_per_layer=4)
    yield "fast", lambda: client.place(job.load, job.topology, options=fast)
    yield "balanced", lambda: client.place(job.load, job.topology, options=balanced)
    yield (
        "improve, <= 4 moves a layer",
        lambda: client.place(job.load, job.topology, current=start.placement, budget=budget),
    )


async def _burst(call: Call, callers: int, window_s: float) -> list[float]:
    """Latencies in ms of all answered calls."""
    end = time.perf_counter() + window_s
    latencies: list[float] = []

    async def caller() -> None:
        while (start := time.perf_counter()) < end:
            await call()
            latencies.append((time.perf_counter() - start) * 1e3)

    await asyncio.gather(*(caller() for _ in range(callers)))
    return latencies
