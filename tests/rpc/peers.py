"""A worker that sends exactly the messages of a test, over a real stream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Self

import grpc
import numpy as np

from trimtab.v1 import placement_pb2, topology_pb2
from trimtab.v1alpha1 import (
    deployment_service_pb2,
    deployment_service_pb2_grpc,
    session_service_pb2_grpc,
    switch_pb2,
)
from trimtab.v1alpha1 import session_service_pb2 as pb
from trimtab_protocol.placement import Placement
from trimtab_protocol.wire.tensors import encode_tensor
from trimtab_server.domain.placement import placement_of
from trimtab_server.engine.deployment import Deployment

LAYERS, EXPERTS, SLOTS, GPUS = 2, 4, 6, 2

BEFORE = placement_of(np.array([[0, 1, 2, 3, 0, 1]] * LAYERS), EXPERTS, GPUS)
AFTER = placement_of(np.array([[0, 1, 2, 3, 0, 2], [3, 1, 2, 0, 3, 1]]), EXPERTS, GPUS)
LAST = placement_of(np.array([[0, 1, 2, 3, 1, 0]] * LAYERS), EXPERTS, GPUS)

LARGE_BEFORE = placement_of(np.array([[*range(256), *range(32)]] * 20), 256, 2)
LARGE_AFTER = placement_of(np.array([[*range(256), *range(32, 64)]] * 20), 256, 2)
"""An offer of one on the other is more than a channel with `NO_ROOM` takes in unread."""

NO_ROOM = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1024))
"""Options of a channel, so that a peer that does not read soon holds up who writes to it."""


def hello(index: int = 0, workers: int = 1, **changes: Any) -> pb.Hello:
    """A valid Hello of one of the workers that share the two GPUs, changed as told."""
    placement: Placement = changes.pop("serves", BEFORE)
    each = placement.num_gpus // workers
    fields: dict[str, Any] = {
        "deployment": "d",
        "group_id": "g",
        "worker": f"w{index}",
        "incarnation": 1,
        "stream": 1,
        "gpus": range(index * each, (index + 1) * each),
        "topology": topology_pb2.Topology(
            num_replicas=placement.phy2log.shape[1], num_gpus=placement.num_gpus
        ),
        "num_experts": placement.num_experts,
        "placement": placement_pb2.Placement(
            phy2log=encode_tensor(placement.phy2log, "i4"), digest=placement.digest
        ),
        "scope": pb.SCOPE_LOCAL,
        "transfer": pb.TRANSFER_PULL,
        "staging_slots": 3,
        "bytes_per_expert": 100,
    }
    return pb.Hello(**{**fields, **changes})


def counted(deployment: Deployment) -> Any:
    """Tokens of each expert that all workers have been counted with, [L, E]."""
    loads = deployment.loads._workers.values()
    return sum(each.counters.counts_LE for each in loads).tolist()


def report(seq: int, *, counts: Any = 1, **changes: Any) -> pb.Report:
    """Counts that are the same for each expert, or as told."""
    counts_LE = np.broadcast_to(np.asarray(counts, np.int64), (LAYERS, EXPERTS))
    fields = {"seq": seq, "last_step": seq, "counts": encode_tensor(counts_LE, "i8")}
    return pb.Report(**{**fields, **changes})


class Peer:
    """One stream of a worker.

    Attributes:
        call: gRPC's.
        seen: messages read so far, by kind.
    """

    def __init__(self, channel: grpc.aio.Channel, *, timeout: float | None = None) -> None:
        self.call = session_service_pb2_grpc.SessionServiceStub(channel).Session(timeout=timeout)
        self.seen: list[str] = []

    async def say(self, **message: Any) -> None:
        """Send one message."""
        await self.call.write(pb.SessionRequest(**message))

    async def hear(self, kind: str) -> Any:
        """The next message of a kind. Other messages before it are skipped."""
        async with asyncio.timeout(20):
            while True:
                message = await self.call.read()
                assert message is not grpc.aio.EOF, f"the stream ended before {kind!r}"
                said = message.WhichOneof("message")
                self.seen.append(said)
                if said == kind:
                    return getattr(message, said)

    async def end(self) -> tuple[grpc.StatusCode, str]:
        """The status with which the server ends the stream. Messages before it are skipped."""
        async with asyncio.timeout(20):
            try:
                while (message := await self.call.read()) is not grpc.aio.EOF:
                    self.seen.append(message.WhichOneof("message"))
            except grpc.aio.AioRpcError:
                pass
            return await self.call.code(), await self.call.details()


async def joined(
    channel: grpc.aio.Channel, message: pb.Hello, *, timeout: float | None = None
) -> Peer:
    """A worker whose Hello the server has accepted."""
    peer = Peer(channel, timeout=timeout)
    await peer.say(hello=message)
    await peer.hear("directive")
    return peer


async def group(channel: grpc.aio.Channel, workers: int = 2, **changes: Any) -> Sequence[Peer]:
    """All workers of a group, in their epoch."""
    peers = [await joined(channel, hello(each, workers, **changes)) for each in range(workers)]
    for peer in peers:
        await peer.hear("welcome")
    return peers


async def trigger(address: str, deployment: str, placement: Placement) -> None:
    """Ask for a placement."""
    wire = placement_pb2.Placement(phy2log=encode_tensor(placement.phy2log, "i4"))
    request = deployment_service_pb2.TriggerRequest(deployment=deployment, placement=wire)
    async with grpc.aio.insecure_channel(address) as channel:
        await deployment_service_pb2_grpc.DeploymentServiceStub(channel).Trigger(request)


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition by polling it."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - so it has to be asked
            await asyncio.sleep(0.001)


def about(order: Any) -> dict[str, Any]:
    """Version and digest, to answer an order with."""
    return {"version": order.version, "digest": order.digest}


def version(epoch: int, generation: int) -> switch_pb2.Version:
    return switch_pb2.Version(epoch=epoch, generation=generation)


class Relay:
    """A network between a worker and a server, which a test can cut. A context manager.

    Attributes:
        address: where it listens.
    """

    address: str

    def __init__(self, server: str) -> None:
        self._server_at = server.rpartition(":")
        self._ends: list[asyncio.StreamWriter] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._left: int | None = None

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        host, port = self._listener.sockets[0].getsockname()
        self.address = f"{host}:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cut()
        await self._listener.wait_closed()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Both sides lose the connection, without a word of HTTP/2."""
        self._listener.close()
        for end in self._ends:
            end.transport.abort()

    def cut_after(self, size: int) -> None:
        """The same once the worker has sent so many bytes more."""
        self._left = size

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = self._server_at
        from_server, to_server = await asyncio.open_connection(host, int(port))
        self._ends += [writer, to_server]
        pumps = self._pump(reader, to_server, up=True), self._pump(from_server, writer, up=False)
        self._tasks += [asyncio.ensure_future(pump) for pump in pumps]

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                if up and self._left is not None:
                    data, self._left = data[: self._left], self._left - len(data)
                writer.write(data)
                await writer.drain()
                if self._left is not None and self._left <= 0:
                    self.cut()
        writer.close()
