"""Rounds of sessions that end in every way, and a count of the objects left after each."""

from __future__ import annotations

import asyncio
import gc
import math
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path

import grpc

from tests.rpc.endpoint import Endpoint, endpoint_of
from tests.rpc.peers import Peer, hello, joined, refused, report
from tests.rpc.placements import AFTER
from tests.rpc.relay import Relay
from trimtab.v1alpha1 import session_service_pb2 as pb
from trimtab.v1alpha1 import switch_pb2
from trimtab_server.rpc.admission import SESSIONS

WAYS = ("goodbye", "cancel", "half-close", "nonsense")
"""In which a session ends. Others are: deadline, vanish, displaced, refused, drained."""

Counts = Counter[tuple[str, str]]


class Rounds:
    """Plays rounds against one server that lasts. Names are new in each, as after a restart."""

    def __init__(self, endpoint: Endpoint, times: int) -> None:
        self._endpoint = endpoint
        self._times = times
        self._round = 0

    async def play(self) -> Counts:
        """Play one round. Returns the counts after it."""
        self._round += 1
        alone = map(self._alone, (*WAYS, "deadline", "vanish"))
        await asyncio.gather(*alone, self._in_a_group(), self._drained())
        return self.look()

    def look(self) -> Counts:
        """Count tasks, streams, threads, files and the server's own objects."""
        endpoint, counts = self._endpoint, Counts()
        endpoint.deployments.hellos._limiter._drop_idle(math.inf)
        gc.collect()
        for task in asyncio.all_tasks():
            counts["task", getattr(task.get_coro(), "__qualname__", "?")] += 1
        for each in gc.get_objects():
            if str(type(each).__module__).startswith("trimtab_server"):
                counts["object", type(each).__qualname__] += 1
        counts["stream", "admitted"] = endpoint.server.admission.running(SESSIONS)
        for event, sign in (("call_started", 1), ("call_ended", -1)):
            counts["stream", "handled"] += sign * len(endpoint.observer.named(event))
        if not counts["stream", "handled"]:
            endpoint.observer.events.clear()
        # The event loop keeps some of its own, for as long as there is work for them.
        names = [thread.name for thread in threading.enumerate()]
        counts["thread", ""] = sum(not name.startswith("asyncio_") for name in names)
        counts["file", ""] = len(list(Path("/proc/self/fd").iterdir()))
        return counts

    async def more_than(self, earlier: Counts, moments: int = 10) -> dict[tuple[str, str], int]:
        """The counts that have grown for good. Objects that are about to end get some moments."""
        for _ in range(moments):
            await asyncio.sleep(0.05)
            more = dict(self.look() - earlier)
            if not more:
                break
        return more

    async def _alone(self, way: str) -> None:
        """Sessions of deployments whose groups are never complete."""
        async with (
            Relay(self._endpoint.address) as relay,
            grpc.aio.insecure_channel(relay.address) as channel,
        ):
            peers = []
            for index in range(self._times):
                message = hello(0, 2, deployment=f"{way} {self._round} {index}")
                if way == "deadline":
                    peers.append(Peer(channel, timeout=0.3))
                    with suppress(grpc.RpcError, asyncio.InvalidStateError):
                        await peers[-1].say(hello=message)
                else:
                    peers.append(await joined(channel, message))
                    await peers[-1].say(report=report(1))
            if way == "vanish":
                relay.cut()
            for peer in peers:
                await peer.leave(way)

    async def _in_a_group(self) -> None:
        """Switches of a group that takes the place of the last round's, aborted and applied."""
        first, second = (
            hello(each, 2, worker=f"{self._round} {each}", group_id=str(self._round))
            for each in range(2)
        )
        right = await self._joined(second)
        for way in (*WAYS, "displaced"):
            left = await self._ready(first, right)
            await self._endpoint.deployments.find("d").operators.move_to(AFTER)
            version = (await right.hear("offer")).version
            if way == "displaced":
                newer = await self._joined(first)
                await left.end()
                await newer.leave()
            else:
                await left.leave(way)
            await right.hear("abort")
            await right.say(discarded=switch_pb2.Discarded(version=version))
            await self._refused(first)
        left = await self._ready(first, right)
        await self._endpoint.deployments.find("d").operators.move_to(AFTER)
        for peer in (left, right):
            await peer.prepare()
        for peer in (left, right):
            await peer.apply()
            await peer.leave()

    async def _joined(self, message: pb.Hello) -> Peer:
        peer = await joined(self._endpoint.channel, message)
        message.stream += 1
        return peer

    async def _ready(self, first: pb.Hello, right: Peer) -> Peer:
        """Wait until the first worker is back and all messages have been handled."""
        left = await self._joined(first)
        await left.hear("welcome")
        for peer in (left, right):
            await peer.report(1)
        return left

    async def _refused(self, known: pb.Hello) -> None:
        """Hellos of a stranger to the group, of a group that has been followed, and of no kind."""
        followed = {"group_id": str(self._round - 1)} if self._round > 1 else {}
        for changes in ({}, followed, {"scope": 0}):
            message = pb.Hello()
            message.CopyFrom(known)
            message.worker = f"{self._round} {''.join(changes)}"
            for field, value in changes.items():
                setattr(message, field, value)
            await refused(self._endpoint.channel, hello=message)

    async def _drained(self) -> None:
        """Sessions of a server that shuts down."""
        async with endpoint_of() as other:
            peers = [
                await joined(other.channel, hello(0, 2, deployment=str(index)))
                for index in range(self._times)
            ]
            await other.server.drain()
            for peer in peers:
                await peer.end()
