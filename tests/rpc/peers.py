"""A worker that says exactly what a test tells it to, over a real stream."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc
import numpy as np

from trimtab.v1 import placement_pb2, topology_pb2
from trimtab.v1alpha1 import session_service_pb2 as pb
from trimtab.v1alpha1 import session_service_pb2_grpc, switch_pb2
from trimtab_server.domain.placement import Placement
from trimtab_server.rpc.tensors import encode_tensor

LAYERS, EXPERTS, SLOTS, GPUS = 2, 4, 6, 2

BEFORE = Placement.of(np.array([[0, 1, 2, 3, 0, 1]] * LAYERS), EXPERTS, GPUS)
AFTER = Placement.of(np.array([[0, 1, 2, 3, 0, 2], [3, 1, 2, 0, 3, 1]]), EXPERTS, GPUS)


def hello(index: int = 0, workers: int = 1, **changes: Any) -> pb.Hello:
    """A valid Hello of one of the workers that share the two GPUs, changed as told."""
    each = GPUS // workers
    placement: Placement = changes.pop("serves", BEFORE)
    fields: dict[str, Any] = {
        "deployment": "d",
        "group_id": "g",
        "worker": f"w{index}",
        "incarnation": 1,
        "stream": 1,
        "gpus": range(index * each, (index + 1) * each),
        "topology": topology_pb2.Topology(num_replicas=SLOTS, num_gpus=GPUS),
        "num_experts": EXPERTS,
        "placement": placement_pb2.Placement(
            phy2log=encode_tensor(placement.phy2log, "i4"), digest=placement.digest
        ),
        "scope": pb.SCOPE_LOCAL,
        "transfer": pb.TRANSFER_PULL,
        "staging_slots": 3,
        "bytes_per_expert": 100,
    }
    return pb.Hello(**{**fields, **changes})


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
        """The next message of a kind; others before it are passed over."""
        async with asyncio.timeout(20):
            while True:
                message = await self.call.read()
                assert message is not grpc.aio.EOF, f"the stream ended before {kind!r}"
                said = message.WhichOneof("message")
                self.seen.append(said)
                if said == kind:
                    return getattr(message, said)

    async def end(self) -> tuple[grpc.StatusCode, str]:
        """How the server ends the stream; what it says before is passed over."""
        async with asyncio.timeout(20):
            try:
                while await self.call.read() is not grpc.aio.EOF:
                    pass
            except grpc.aio.AioRpcError:
                pass
            return await self.call.code(), await self.call.details()


async def joined(channel: grpc.aio.Channel, message: pb.Hello) -> Peer:
    """A worker whose Hello the server has taken."""
    peer = Peer(channel)
    await peer.say(hello=message)
    await peer.hear("directive")
    return peer


async def group(channel: grpc.aio.Channel, workers: int = 2, **changes: Any) -> Sequence[Peer]:
    """All workers of a group, in their epoch."""
    peers = [await joined(channel, hello(each, workers, **changes)) for each in range(workers)]
    for peer in peers:
        await peer.hear("welcome")
    return peers


def about(order: Any) -> dict[str, Any]:
    """Version and digest, to answer an order with."""
    return {"version": order.version, "digest": order.digest}


def version(epoch: int, generation: int) -> switch_pb2.Version:
    return switch_pb2.Version(epoch=epoch, generation=generation)
