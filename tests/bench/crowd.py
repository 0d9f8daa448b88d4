"""The cost of many large deployments for one server that balances all of them."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

from tests.bench import drifting
from tests.bench.options import Options
from tests.bench.sessions import LARGE, join, report_once, resident_bytes
from tests.bench.tables import in_ms, print_table
from tests.servers import ServerProcess, server_process
from trimtab_client import AsyncClient, Client, Mode, Policy
from trimtab_protocol.wire.tensors import encode_tensor

DEPLOYMENTS = 100
WARM_UP_S, SECONDS = 30.0, 60.0
PROBE_EVERY_S = 0.25

_SHAPE = f"{drifting.LAYERS} x {drifting.EXPERTS} -> {drifting.SLOTS} / {drifting.GPUS}"
CAPTION = (
    f"Active deployments of {_SHAPE}, each one worker without weights that reports once a second "
    f"{drifting.STEPS_A_SECOND} steps of a load that drifts from one to another and back in "
    f"{drifting.CYCLE_S:.0f} s; all workers in one process beside the server's. Default policy, "
    "and SQLite. Cores: the server process's CPU time a second, of that its solver's. A decision's "
    "time is from the server's histogram, taken to be even between the bounds of a bucket, and "
    "without what follows from it; after the last: of the same deployment, where one a second is "
    f"due. Acknowledged: a report of another deployment, of the same size, each {PROBE_EVERY_S} s. "
    "Memory: resident; at rest is with all sessions, about when they first report."
)


class Used(NamedTuple):
    """The resources that the server has used by some time: seconds, and decisions by duration."""

    at: float
    cpu: float
    solver: float
    decisions: Mapping[float, float]


def run(options: Options) -> None:
    """Print the costs."""
    numbers, warm_up, seconds = (DEPLOYMENTS,), WARM_UP_S, SECONDS
    if options.quick:
        numbers, warm_up, seconds = (5,), 2.0, 3.0
    columns = ["deployments", "cores", "of that solver", "decisions/s", "improved / re-planned"]
    columns += ["decision p50 / p99 ms", "after the last p50 / p99 / most s"]
    columns += ["acknowledged p50 / p99 ms", "MB at start", "at rest", "after"]
    rows = (_row(number, warm_up, seconds) for number in numbers)
    print_table("A crowd of deployments", columns, rows, CAPTION)


def _row(number: int, warm_up: float, seconds: float) -> list[object]:
    with (
        TemporaryDirectory(prefix="trimtab-bench-") as folder,
        server_process("--balance", "active", "--store", str(Path(folder, "db"))) as server,
        Client(server.address) as client,
    ):
        megabytes = [_megabytes(server)]
        with _crowd(server.address, number):
            megabytes.append(_megabytes(server))
            time.sleep(warm_up)
            since, before = time.time(), _used(server)
            latencies = asyncio.run(_probe(server, seconds))
            after = _used(server)
            names = [drifting.name_of(each) for each in range(number)]
            times, reasons = _decisions(client, names, since)
        megabytes.append(_megabytes(server))
    took = after.at - before.at
    gaps = [later - one for each in times for one, later in pairwise(each)]
    decided = {le: count - before.decisions[le] for le, count in after.decisions.items()}
    total = sum(reasons.values())
    shares = (reasons["improved"] / total, reasons["replanned"] / total)
    return [
        number,
        f"{(after.cpu - before.cpu) / took:.2f}",
        f"{(after.solver - before.solver) / took:.2f}",
        f"{total / took:.1f}",
        " / ".join(f"{share:.0%}" for share in shares),
        f"{in_ms(quantile(decided, 0.5) * 1e3)} / {in_ms(quantile(decided, 0.99) * 1e3)}",
        f"{median(gaps):.2f} / {_p99(gaps):.2f} / {max(gaps):.2f}",
        f"{in_ms(median(latencies) * 1e3)} / {in_ms(_p99(latencies) * 1e3)}",
        *(f"{each:.0f}" for each in megabytes),
    ]


@contextmanager
def _crowd(address: str, number: int) -> Iterator[None]:
    """Run the workers; all have their placements in force when the block begins."""
    command = [sys.executable, "-m", "tests.bench.drifting", address, str(number)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as workers:
        assert workers.stdout is not None
        assert workers.stdout.readline() == b"ready\n"
        yield
        workers.communicate()
    assert workers.returncode == 0, workers.returncode


async def _probe(server: ServerProcess, seconds: float) -> list[float]:
    """Seconds that reports take on a deployment for which nothing is decided."""
    counts = encode_tensor(np.ones((LARGE.layers, LARGE.experts), np.int64), "i8")
    latencies: list[float] = []
    async with AsyncExitStack() as open_:
        client = await open_.enter_async_context(AsyncClient(server.address))
        (peer,) = await join(open_, server.address, LARGE, 1)
        await client.update_policy("bench", Policy(mode=Mode.OFF))
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            latencies.append(await report_once(peer, counts, seq=2 + len(latencies)))
            await asyncio.sleep(PROBE_EVERY_S)
    return latencies


def _decisions(
    client: Client, names: list[str], since: float
) -> tuple[list[list[float]], Counter[str]]:
    """The times of decisions of each deployment, and the number of decisions by reason."""
    times, reasons = [], Counter[str]()
    for name in names:
        recent = [each for each in client.decisions(name) if each.time.timestamp() >= since]
        times.append([each.time.timestamp() for each in recent])
        reasons.update(each.reason.value for each in recent)
    return times, reasons


def _used(server: ServerProcess) -> Used:
    with urllib.request.urlopen(f"http://{server.metrics_address}/metrics") as page:
        text = page.read().decode()
    stages = re.findall(r"^trimtab_solver_stage_duration_seconds_sum\S* (\S+)$", text, re.MULTILINE)
    buckets = re.findall(
        r'^trimtab_decision_duration_seconds_bucket\{le="([^"]+)"\} (\S+)$', text, re.MULTILINE
    )
    # User and system time in ticks, after the second field, a name in brackets.
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rpartition(")")[2].split()
    cpu = sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")
    decisions = {float(le): float(count) for le, count in buckets}
    return Used(time.perf_counter(), cpu, sum(map(float, stages)), decisions)


def quantile(counts: Mapping[float, float], share: float) -> float:
    """A quantile of a histogram, given as the cumulative count at each bound."""
    wanted, low, below = share * max(counts.values()), 0.0, 0.0
    for bound, count in sorted(counts.items()):
        if count >= wanted:
            inside = (wanted - below) / (count - below) if count > below else 0.0
            return low + inside * (bound - low)
        low, below = bound, count
    return low


def _p99(values: list[float]) -> float:
    return quantiles(values, n=100)[98]


def _megabytes(server: ServerProcess) -> float:
    return resident_bytes(server.process.pid) / 1e6
