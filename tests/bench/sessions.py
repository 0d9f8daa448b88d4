"""The cost of sessions for a server: acknowledged reports, and memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import NamedTuple

import grpc
import numpy as np

from tests.bench.options import Options
from tests.bench.raw import acknowledged, raw_server
from tests.bench.tables import in_ms, print_table
from tests.rpc.peers import Peer
from tests.servers import ServerProcess, server_process
from trimtab.v1 import placement_pb2, topology_pb2
from trimtab.v1alpha1 import session_service_pb2 as pb
from trimtab_protocol.wire.tensors import encode_tensor
from trimtab_server.domain.placement import placement_of

SECONDS = 10.0
STREAMS = (1, 4, 16)
SESSIONS = (100, 300)


_UNLIMITED = ("--messages-per-second", "1000000")


class Model(NamedTuple):
    """The sizes of a deployment's model."""

    layers: int
    experts: int
    slots: int

    def __str__(self) -> str:
        return f"{self.layers} x {self.experts}"


LARGE = Model(58, 256, 288)
MIDDLE = Model(58, 128, 160)
SMALL = Model(24, 32, 48)
TINY = Model(4, 300, 300)


def run(options: Options) -> None:
    """Print acknowledged reports a second, and memory by number of sessions."""
    quick = options.quick
    seconds, streams = (0.2, (2,)) if quick else (SECONDS, STREAMS)
    models = (SMALL,) if quick else (SMALL, MIDDLE, LARGE)
    columns = ["counts", "KB a report", "sessions", "acknowledged/s", "p50 ms", "p99 ms"]
    columns.append("gRPC alone/s")
    caption = (
        "Each session sends a report, waits for its acknowledgement, and sends the next. All "
        "sessions are of one deployment and live in one process beside the server's. Counts are "
        "int64 and saved to SQLite as in service; no session is limited in how often it "
        "reports. gRPC alone: as many bytes, neither read nor added, by a server of its own."
    )
    rows = (_reports(model, each, seconds) for model in models for each in streams)
    print_table("Reports", columns, rows, caption)
    columns = ["counts", "sessions", "server's memory, MB", "KB a session"]
    caption = (
        "Resident memory of the server once each session has had a report acknowledged. The first "
        "line has one session."
    )
    sizes = ((TINY, (4,)),) if quick else ((TINY, SESSIONS), (LARGE, (96, 288)))
    lines = (row for model, counts in sizes for row in _memory(model, counts))
    print_table("Memory of sessions", columns, lines, caption)


def _reports(model: Model, sessions: int, seconds: float) -> list[object]:
    with _server() as server:
        latencies, took = asyncio.run(_exchange(server.address, model, sessions, seconds))
    size = model.layers * model.experts * 8 / 1e3
    p99 = in_ms(quantiles(latencies, n=100)[98] * 1e3)
    rate = f"{len(latencies) / took:.0f}"
    with raw_server() as address:
        bare = asyncio.run(acknowledged(address, round(size * 1e3), sessions, seconds))
    p50 = in_ms(median(latencies) * 1e3)
    return [str(model), f"{size:.0f}", sessions, rate, p50, p99, f"{bare:.0f}"]


@contextmanager
def _server() -> Iterator[ServerProcess]:
    with (
        TemporaryDirectory(prefix="trimtab-bench-") as folder,
        server_process("--store", str(Path(folder, "db")), *_UNLIMITED) as server,
    ):
        yield server


async def _exchange(
    address: str, model: Model, sessions: int, seconds: float
) -> tuple[list[float], float]:
    """Latencies of all reports, and the total time, in seconds."""
    async with AsyncExitStack() as open_:
        peers = await join(open_, address, model, sessions)
        start = time.perf_counter()
        each = await asyncio.gather(*(_report(peer, model, start + seconds) for peer in peers))
        return [latency for latencies in each for latency in latencies], time.perf_counter() - start


async def _report(peer: Peer, model: Model, end: float) -> list[float]:
    latencies = []
    counts = encode_tensor(np.ones((model.layers, model.experts), np.int64), "i8")
    while time.perf_counter() < end:
        latencies.append(await report_once(peer, counts, seq=2 + len(latencies)))
    return latencies


async def report_once(peer: Peer, counts: object, seq: int) -> float:
    start = time.perf_counter()
    await peer.say(report=pb.Report(seq=seq, first_step=seq, last_step=seq, counts=counts))
    ack = await peer.hear("report_ack")
    assert ack.seq == seq
    return time.perf_counter() - start


def _memory(model: Model, sizes: tuple[int, ...]) -> Iterator[list[object]]:
    first = 0.0
    for sessions in (1, *sizes):
        with _server() as server:
            memory = asyncio.run(_resident(server, model, sessions))
        if sessions == 1:
            first = memory
            yield [str(model), sessions, f"{memory / 1e6:.0f}", ""]
        else:
            each = (memory - first) / (sessions - 1) / 1e3
            yield [str(model), sessions, f"{memory / 1e6:.0f}", f"{each:.0f}"]


async def _resident(server: ServerProcess, model: Model, sessions: int) -> float:
    """Resident bytes with this number of sessions, each of which has reported once."""
    counts = encode_tensor(np.ones((model.layers, model.experts), np.int64), "i8")
    async with AsyncExitStack() as open_:
        peers = await join(open_, server.address, model, sessions)
        await asyncio.gather(*(report_once(peer, counts, seq=2) for peer in peers))
        return await asyncio.to_thread(resident_bytes, server.process.pid)


def resident_bytes(pid: int) -> float:
    return 4096.0 * int(Path(f"/proc/{pid}/statm").read_text().split()[1])


async def join(open_: AsyncExitStack, address: str, model: Model, sessions: int) -> list[Peer]:
    """Open this number of sessions, each over its own connection, like workers."""
    gpus = sessions
    slots = max(model.slots, -(-model.experts // gpus) * gpus)
    slots += -slots % gpus
    row = np.arange(slots) % model.experts
    placement = placement_of(np.tile(row, (model.layers, 1)), model.experts, gpus)
    wire = placement_pb2.Placement(
        phy2log=encode_tensor(placement.phy2log, "i4"), digest=placement.digest
    )
    peers = []
    for index in range(sessions):
        channel = grpc.aio.insecure_channel(
            address, options=[("grpc.use_local_subchannel_pool", 1)]
        )
        await open_.enter_async_context(channel)
        peer = Peer(channel)
        await peer.say(
            hello=pb.Hello(
                deployment="bench",
                group_id="group",
                worker=f"worker {index}",
                incarnation=1,
                stream=1,
                gpus=[index],
                topology=topology_pb2.Topology(num_replicas=slots, num_gpus=gpus),
                num_experts=model.experts,
                placement=wire,
                scope=pb.SCOPE_LOCAL,
                transfer=pb.TRANSFER_PULL,
                staging_slots=1,
                bytes_per_expert=1,
            )
        )
        peers.append(peer)
    for peer in peers:
        await peer.hear("welcome")
    return peers
