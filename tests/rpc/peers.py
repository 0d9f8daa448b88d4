"""A worker that sends exactly the messages of a test, over a real stream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import grpc
import numpy as np

from tests.rpc.placements import BEFORE, EXPERTS, LAYERS
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
from trimtab_server.engine.deployment import Deployment


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
    loads = deployment._core.loads._workers.values()
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
        """Send one message. A call may end before its Hello is sent: then `end` says why."""
        try:
            await self.call.write(pb.SessionRequest(**message))
        except grpc.RpcError:
            if "hello" not in message:
                raise

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

    async def report(self, seq: int, **changes: Any) -> int:
        """Send a report; returns the number of one that is acknowledged.

        The server takes messages in order, so by then it has taken what was sent before.
        """
        await self.say(report=report(seq, **changes))
        return int((await self.hear("report_ack")).seq)

    async def prepare(self) -> switch_pb2.Offer:
        """Prepare the next offer, and return it."""
        offer = await self.hear("offer")
        await self.say(prepared=switch_pb2.Prepared(**about(offer)))
        return offer

    async def apply(self, step: int = 1) -> switch_pb2.Commit:
        """Apply what the next commit is about, and return that commit."""
        commit = await self.hear("commit")
        await self.say(applied=switch_pb2.Applied(step=step, **about(commit)))
        return commit

    async def leave(self, way: str = "goodbye") -> None:
        """End the session in this way, and wait for its end."""
        match way:
            case "goodbye":
                await self.say(goodbye=pb.Goodbye(reason="enough"))
            case "cancel":
                self.call.cancel()
            case "half-close":
                await self.call.done_writing()
            case "nonsense":
                await self.say()
        with suppress(asyncio.CancelledError):
            await self.end()

    async def end(self) -> tuple[str, str]:
        """Code and details with which the server ends the stream. Skips messages before it."""
        async with asyncio.timeout(20):
            try:
                while (message := await self.call.read()) is not grpc.aio.EOF:
                    self.seen.append(message.WhichOneof("message"))
            except grpc.aio.AioRpcError:
                pass
            return (await self.call.code()).name, await self.call.details()


async def refused(channel: grpc.aio.Channel, **message: Any) -> tuple[str, str]:
    """Code and details with which the server ends a stream that begins with this message."""
    peer = Peer(channel)
    await peer.say(**message)
    return await peer.end()


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


async def carry_out(peers: Sequence[Peer], step: int = 1) -> switch_pb2.Version:
    """All workers carry out the switch that they are offered; returns its version."""
    offers = [await peer.prepare() for peer in peers]
    for peer in peers:
        await peer.apply(step)
    return offers[0].version


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
