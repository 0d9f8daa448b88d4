"""What becomes of a switch where a worker or the server fails, in each state it can be in."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from tests.rpc.endpoint import Endpoint
from tests.rpc.peers import Peer, about, counted, hello, joined, report, trigger, until, version
from tests.rpc.placements import AFTER, LAST
from tests.rpc.relay import Relay
from tests.servers import server_process
from trimtab.v1alpha1 import switch_pb2
from trimtab_server.engine.deployment import Deployment
from trimtab_server.rollout.open_switch import Phase
from trimtab_server.rpc.admission import SESSIONS

STATES = ("idle", "mid-report", "offered", "prepared", "committed", "armed", "applied by the other")
"""Of the first of two workers, which is the one that fails."""

OFFERED, COMMITTED = STATES[2:4], STATES[4:]
HELD = {
    "offered": ("ACCEPTED", "ACCEPTED"),
    "prepared": ("PREPARED", "ACCEPTED"),
    # The order to flip was lost on the way.
    "committed": ("PREPARED", "PREPARED"),
    "armed": ("ARMED", "ARMED"),
    "applied by the other": ("ARMED", None),
}


async def bring_to(state: str, address: str, peers: Sequence[Peer], name: str) -> None:
    """Take a group so far. By its messages only, so that the server may be any."""
    first, second = peers
    for peer in peers:
        await peer.hear("welcome")
        await peer.report(1)
    if state == "mid-report":
        await first.say(report=report(2, counts=2))
    if state in ("idle", "mid-report"):
        return
    await trigger(address, name, AFTER)
    offers = [await peer.hear("offer") for peer in peers]
    if state == "offered":
        return
    ready = peers[:1] if state == "prepared" else peers
    for peer, offer in zip(ready, offers, strict=False):
        await peer.say(prepared=switch_pb2.Prepared(**about(offer)))
    if state == "prepared":
        await taken(first)
        return
    for peer in peers if state == "armed" else peers[1:]:
        await peer.hear("commit")
    if state == "applied by the other":
        await second.say(applied=switch_pb2.Applied(step=5, **about(offers[1])))
        await taken(second)


async def taken(peer: Peer, seq: int = 2) -> None:
    """Return when the server has taken all that a peer has said, since it does so in order."""
    assert await peer.report(seq, counts=seq) == seq


def has(state: str, index: int, *, flipped: bool = False) -> dict[str, Any]:
    """What a worker has to say of itself when it comes back."""
    had = HELD.get(state, (None, None))[index]
    if flipped or (state in COMMITTED and had is None):
        return {"in_force": version(1, 1), "serves": AFTER, "flipped_at": 5}
    held = {"version": version(1, 1), "state": f"HELD_STATE_{had}"}
    return {"in_force": version(1, 0), "held": held if had else None}


async def carry_out(state: str, peers: Sequence[Peer], *, told: Sequence[Peer]) -> None:
    """The open switch ends as it must; of the workers, `told` are asked for it anew."""
    for peer in peers:
        if state in OFFERED:
            abort = await peer.hear("abort") if peer in told else None
            assert abort is None or abort.version == version(1, 1)
            await peer.say(discarded=switch_pb2.Discarded(version=version(1, 1)))
        elif state in COMMITTED:
            commit = await peer.hear("commit") if peer in told else None
            assert commit is None or about(commit) == SWITCHED
            await peer.say(applied=switch_pb2.Applied(step=5, **SWITCHED))


SWITCHED = {"version": version(1, 1), "digest": AFTER.digest}


async def is_free(state: str, peers: Sequence[Peer], address: str, name: str) -> None:
    """The group serves by what it must, and takes the next switch."""
    for peer in peers:
        await taken(peer, 3)
    await trigger(address, name, LAST)
    for peer in peers:
        offer = await peer.hear("offer")
        assert offer.base == version(1, 1 if state in COMMITTED else 0)
        assert offer.version == version(1, 1 if state in STATES[:2] else 2)


# One worker fails.


@dataclass(frozen=True)
class Scene:
    """A group of two; its first worker has a network of its own."""

    endpoint: Endpoint
    relay: Relay
    channel: grpc.aio.Channel
    first: Peer
    second: Peer
    deployment: Deployment

    async def until_lost(self) -> None:
        """Wait for the server to notice."""
        async with asyncio.timeout(20):
            while len(self.deployment.sessions) > 1:
                await self.deployment.changed()

    async def go_on(self, state: str) -> None:
        """The first worker comes back, and the switch ends."""
        rollout = self.deployment.rollout
        if state in OFFERED:
            assert (await self.second.hear("abort")).version == version(1, 1)
            assert rollout.phase is Phase.ABORTING
        elif state in COMMITTED:
            assert rollout.phase is Phase.COMMITTED
        else:
            assert "'w0' has no session" in str(rollout.blocked_reason())
        name, address = self.deployment.name, self.endpoint.address
        message = hello(0, 2, deployment=name, stream=2, **has(state, 0))
        back = await joined(self.endpoint.channel, message)
        assert (await back.hear("welcome")).version == version(1, 0)
        both = (back, self.second)
        await carry_out(state, both[: 1 if "applied" in state else 2], told=(back,))
        await is_free(state, both, address, name)
        assert ("abort" in back.seen, "commit" in back.seen) == (
            state in OFFERED,
            state in COMMITTED,
        )
        assert counted(self.deployment) == [[6] * 4] * 2


@asynccontextmanager
async def scene(
    state: str, endpoint: Endpoint, name: str = "d", timeout: float | None = None
) -> AsyncIterator[Scene]:
    async with (
        Relay(endpoint.address) as relay,
        grpc.aio.insecure_channel(relay.address) as channel,
    ):
        first = await joined(channel, hello(0, 2, deployment=name), timeout=timeout)
        second = await joined(endpoint.channel, hello(1, 2, deployment=name))
        await bring_to(state, endpoint.address, (first, second), name)
        deployment = endpoint.deployments.find(name)
        yield Scene(endpoint, relay, channel, first, second, deployment)


async def fail(group: Scene, fault: str) -> None:
    """The first worker does."""
    match fault:
        case "close":
            await group.channel.close()
        case "vanish":
            group.relay.cut()
        case way:
            await group.first.leave(way)


@pytest.mark.parametrize(
    "fault", ["cancel", "half-close", "goodbye", "close", "vanish", "nonsense"]
)
@pytest.mark.parametrize("state", STATES)
async def test_a_lost_worker_reconnects_and_the_switch_ends_correctly(endpoint, state, fault):
    async with scene(state, endpoint) as group:
        await fail(group, fault)
        await group.until_lost()
        await group.go_on(state)


@pytest.mark.slow
async def test_a_call_whose_deadline_passes_is_a_lost_worker_in_each_state(endpoint):
    async def run_out(state: str) -> None:
        # Longer than it takes to get there, also on a slow machine.
        async with scene(state, endpoint, name=state, timeout=4) as group:
            assert len(group.deployment.sessions) == 2
            await group.until_lost()
            assert await group.first.call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            await group.go_on(state)

    await asyncio.gather(*(run_out(state) for state in STATES))


async def test_a_truncated_report_is_ignored(endpoint):
    async with scene("idle", endpoint) as group:
        message = report(2, counts=2)
        group.relay.cut_after(message.ByteSize() // 2)
        await group.first.say(report=message)
        await group.until_lost()
        assert counted(group.deployment) == [[2] * 4] * 2
        await group.go_on("idle")


@pytest.mark.parametrize("at", ["the deployment is loaded", "the epoch is saved"])
async def test_a_worker_that_cancels_while_its_session_begins_leaves_no_session(endpoint, at):
    deployments, release = endpoint.deployments, threading.Event()
    first = None
    if at == "the epoch is saved":
        first = await joined(endpoint.channel, hello(0, 2))
    blocking = asyncio.ensure_future(deployments._store.call(release.wait))
    given_up = Peer(endpoint.channel)
    await given_up.say(hello=hello(1, 2))
    if first is None:
        await until(deployments._creating.locked)
    else:
        deployment = deployments.find("d")
        await until(lambda: len(deployment.sessions) == 2)
    given_up.call.cancel()
    await until(lambda: endpoint.server.admission.running(SESSIONS) == (first is not None))
    release.set()
    await blocking
    if first is None:
        await until(lambda: not deployments.all())
        first = await joined(endpoint.channel, hello(0, 2))
    else:
        await deployment.wait_idle()
        assert len(deployment.sessions) == 1
        assert "'w1' has no session" in str(deployment.rollout.blocked_reason())
    second = await joined(endpoint.channel, hello(1, 2, stream=2))
    for peer in (first, second):
        await peer.hear("welcome")
    await is_free("idle", (first, second), endpoint.address, "d")


# The server ends.


@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["drain", "kill"])
async def test_a_restarted_server_continues_from_each_state(tmp_path, number):
    store = ("--store", str(tmp_path / "db"))
    drains = number == signal.SIGTERM

    async def begin(state: str, server: Any, channel: grpc.aio.Channel) -> list[Peer]:
        peers = [await joined(channel, hello(each, 2, deployment=state)) for each in range(2)]
        await bring_to(state, server.address, peers, state)
        return peers

    async def see_the_end(state: str, peers: Sequence[Peer]) -> None:
        for peer in peers:
            assert (await peer.end())[0] == "UNAVAILABLE"
            assert ("drain" in peer.seen, "abort" in peer.seen) == (
                drains,
                drains and state in OFFERED,
            )

    async def go_on(state: str, server: Any, channel: grpc.aio.Channel) -> None:
        # Where all are armed, the engines have flipped by themselves.
        flipped = state == "armed"
        hellos = [
            hello(each, 2, deployment=state, stream=2, **has(state, each, flipped=flipped))
            for each in range(2)
        ]
        peers = [await joined(channel, message) for message in hellos]
        for peer, message in zip(peers, hellos, strict=True):
            assert (await peer.hear("welcome")).version == message.in_force
        asked = peers[: 0 if flipped else 1 if "applied" in state else 2]
        await carry_out(state, asked, told=peers)
        await is_free(state, peers, server.address, state)
        for peer in peers:
            assert ("abort" in peer.seen, "commit" in peer.seen) == (
                state in OFFERED,
                state in COMMITTED and peer in asked,
            )

    with server_process(*store) as server:
        async with grpc.aio.insecure_channel(server.address) as channel:
            groups = await asyncio.gather(*(begin(state, server, channel) for state in STATES))
            server.process.send_signal(number)
            await asyncio.gather(*map(see_the_end, STATES, groups))
            assert await asyncio.to_thread(server.process.wait, 60) == (0 if drains else -number)
    with server_process(*store) as server:
        async with grpc.aio.insecure_channel(server.address) as channel:
            await asyncio.gather(*(go_on(state, server, channel) for state in STATES))
