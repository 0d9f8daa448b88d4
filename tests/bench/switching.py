"""How long a switch takes, from the offer to the last Applied, and how many fit in a minute."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory

import grpc
import numpy as np

from tests.bench.light import DEPLOYMENT, STEP_S, LightGroup, small
from tests.bench.options import Options
from tests.bench.tables import in_ms, print_table
from tests.servers import server_process
from trimtab.v1 import placement_pb2
from trimtab.v1alpha1 import deployment_service_pb2 as pb
from trimtab.v1alpha1 import deployment_service_pb2_grpc
from trimtab_client import Placement
from trimtab_protocol.wire.tensors import encode_tensor
from trimtab_tools.simulate.fleet import Fleet
from trimtab_tools.simulate.options import FleetOptions

SWITCHES = 200
LIGHT = (8, 300)
RANKS = 8


def run(options: Options) -> None:
    """Print the time of a switch for light sessions, and for processes with weights."""
    switches, sizes = (3, (2,)) if options.quick else (SWITCHES, LIGHT)
    columns = ["workers", "switches", "offer to last flip p50 / p99 ms"]
    columns += ["offer to last Applied, durable, p50 / p99 ms", "switches a minute"]
    caption = (
        "Light workers: sessions without weights on one event loop, which begin a step each "
        f"{STEP_S * 1e3:.0f} ms or as soon as they can, and share the cores with the server. "
        "Store: SQLite. One switch after another."
    )
    rows = (asyncio.run(_measure(workers, switches)) for workers in sizes)
    print_table("Switches of light sessions", columns, rows, caption)
    caption = (
        "`trimtab simulate`: each rank is a process with a session, weights that it serves to "
        "others over sockets, and a barrier with them before each step. Two experts change "
        "places in each switch. All share the cores with the server. Store: SQLite."
    )
    row = _measure_fleet(2 if options.quick else RANKS, switches)
    print_table("Switches of real processes", columns, [row], caption)


async def _measure(workers: int, switches: int) -> list[object]:
    with TemporaryDirectory(prefix="trimtab-bench-") as folder:
        history = Path(folder, "history.jsonl")
        flags = ("--store", str(Path(folder, "db")), "--history", str(history))
        flags += ("--max-sessions", str(workers))
        with server_process(*flags) as server:
            async with (
                LightGroup(server.address, small(workers)) as group,
                grpc.aio.insecure_channel(server.address) as channel,
            ):
                await group.until_all("in_force", group.placement.digest)
                flipped, applied, start = [], [], time.perf_counter()
                for seed in range(switches):
                    flip, ended = await _switch(group, channel, group.swapped(seed), history)
                    flipped.append(flip)
                    applied.append(ended)
                rate = switches / (time.perf_counter() - start) * 60
    return [workers, switches, _spread(flipped), _spread(applied), f"{rate:.0f}"]


def _measure_fleet(ranks: int, switches: int) -> list[object]:
    with TemporaryDirectory(prefix="trimtab-bench-") as folder:
        history = Path(folder, "history.jsonl")
        with Fleet(FleetOptions(ranks=ranks), history=history) as fleet:
            fleet.wait_in_force()
            flipped, applied, start = [], [], time.perf_counter()
            for seed in range(switches):
                target, begun = _swapped(fleet.target, seed), time.perf_counter()
                notes = _Notes(history)
                fleet.switch_to(target)
                flipped.append(time.perf_counter() - begun)
                notes.wait_for_applied()
                applied.append(time.perf_counter() - begun)
            rate = switches / (time.perf_counter() - start) * 60
            report = fleet.finish()
    assert report.ok, report
    return [ranks, switches, _spread(flipped), _spread(applied), f"{rate:.0f}"]


def _swapped(placement: Placement, seed: int) -> Placement:
    """The placement with two slots of different GPUs and experts exchanged in one layer."""
    rng, rows = np.random.default_rng(seed), placement.phy2log.copy()
    slots = rows.shape[1] // placement.num_gpus
    while True:
        layer, (one, other) = rng.integers(len(rows)), rng.choice(rows.shape[1], 2, replace=False)
        if one // slots != other // slots and rows[layer, one] != rows[layer, other]:
            rows[layer, [one, other]] = rows[layer, [other, one]]
            return Placement.of(rows, placement.num_experts, placement.num_gpus)


async def _switch(
    group: LightGroup, channel: grpc.aio.Channel, target: Placement, history: Path
) -> tuple[float, float]:
    """Seconds until the last worker has flipped, and until the switch is durable."""
    stub = deployment_service_pb2_grpc.DeploymentServiceStub(channel)
    wire = placement_pb2.Placement(phy2log=encode_tensor(target.phy2log, "i4"))
    notes, start = _Notes(history), time.perf_counter()
    await stub.Trigger(pb.TriggerRequest(deployment=DEPLOYMENT, placement=wire), timeout=60)
    await group.until_all("flipped", target.digest)
    flipped = time.perf_counter() - start
    await asyncio.to_thread(notes.wait_for_applied)
    return flipped, time.perf_counter() - start


class _Notes:
    """Reads the lines that the server writes to its history from now on."""

    def __init__(self, history: Path) -> None:
        self._history = history
        self._begin = history.stat().st_size

    def wait_for_applied(self) -> None:
        """Wait until all workers have applied a switch, and that is durable."""
        with self._history.open("rb") as lines:
            while True:
                lines.seek(self._begin)
                if b'"kind": "applied"' in lines.read():
                    return
                time.sleep(0.0002)


def _spread(seconds: list[float]) -> str:
    p99 = quantiles(seconds, n=100)[98]
    return f"{in_ms(median(seconds) * 1e3)} / {in_ms(p99 * 1e3)}"
