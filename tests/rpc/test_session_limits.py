"""One worker's floods, silences and sizes are its own trouble, and no other worker's."""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager

import grpc
import numpy as np
import pytest
import structlog

from tests.rpc.endpoint import NO_ROOM, endpoint_of, failure, retry_seconds
from tests.rpc.peers import Peer, carry_out, counted, group, hello, joined, refused, report, until
from tests.rpc.placements import AFTER, EXPERTS, LARGE_AFTER, LARGE_BEFORE
from trimtab.v1alpha1 import session_service_pb2 as pb
from trimtab_protocol.wire.tensors import encode_tensor
from trimtab_server.rollout.open_switch import Phase
from trimtab_server.rpc.admission import SESSIONS

SILENT = ("ABORTED", "no message came from the worker for 0.2 s (setting lease_seconds)")


# Floods.


async def test_a_worker_over_its_rate_is_delayed_and_no_other_worker_is():
    # Ten at once, and then one in a hundred seconds.
    slow = {"messages_per_second": 0.01, "report_seconds": 100, "lease_seconds": 3600}
    async with endpoint_of(**slow) as endpoint:
        delayed: list[str] = []
        endpoint.deployments.observer.message_delayed = delayed.append
        with structlog.testing.capture_logs() as logs:
            flooding = await joined(endpoint.channel, hello(deployment="flood"))
            for seq in range(1, 101):
                await flooding.say(report=report(seq, counts=seq))
            await until(lambda: delayed)
            peers = await group(endpoint.channel)
            deployment = endpoint.deployments.find("d")
            await deployment.operators.move_to(AFTER)
            await carry_out(peers)
            await until(lambda: deployment.rollout.phase is Phase.IDLE)
            for peer in peers:
                await peer.report(1)
        flooded = endpoint.deployments.find("flood")
        assert counted(flooded) == [[10] * 4] * 2
        assert delayed == ["flood"]
        assert len(flooded.sessions) == 1
        (said,) = [entry for entry in logs if entry["event"] == "too many messages"]
        assert (said["deployment"], said["worker"]) == ("flood", "w0")


async def test_a_flood_within_the_limit_does_not_delay_other_workers():
    async with endpoint_of(messages_per_second=1e6) as endpoint:
        flooding, other = await group(endpoint.channel)

        async def flood() -> None:
            for seq in range(1, 10**9):
                await flooding.say(report=report(seq, counts=seq))

        task = asyncio.ensure_future(flood())
        await flooding.hear("report_ack")
        for seq in range(1, 51):
            assert await other.report(seq, counts=seq) == seq
        assert not task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_worker_that_begins_too_many_sessions_is_told_when_to_retry():
    async with endpoint_of() as endpoint:
        for stream in range(1, 21):
            last = await joined(endpoint.channel, hello(0, 2, stream=stream))
        over = Peer(endpoint.channel)
        await over.say(hello=hello(0, 2, stream=21))
        _, details = await over.end()
        assert details == (
            "worker 'w0' of 'd' begins sessions too often: "
            "20 at once and then 1 a second are the limit, which no setting changes: "
            "wait longer between two"
        )
        assert 0 < retry_seconds(await failure(over.call.read(), "RESOURCE_EXHAUSTED")) <= 1
        # Nobody else is kept out, and the session that there is goes on.
        other = await joined(endpoint.channel, hello(1, 2))
        for peer in (last, other):
            await peer.hear("welcome")
            await peer.report(1)


async def test_sessions_over_the_limit_are_refused_until_one_ends():
    async with endpoint_of(max_sessions=1) as endpoint:
        first = await joined(endpoint.channel, hello(0, 2))
        peer = Peer(endpoint.channel)
        await peer.say(hello=hello(1, 2))
        limit = "1 such calls are running, which is the limit of this server (setting max_sessions)"
        assert await peer.end() == ("RESOURCE_EXHAUSTED", limit)
        assert retry_seconds(await failure(peer.call.read(), "RESOURCE_EXHAUSTED")) > 0
        await first.leave()
        # The worker hears of the end before the server has counted it.
        await until(lambda: endpoint.server.admission.running(SESSIONS) == 0)
        await joined(endpoint.channel, hello(1, 2))


async def test_deployments_over_the_limit_are_refused_until_one_is_unused():
    async with endpoint_of(max_deployments=1) as endpoint:
        first = await joined(endpoint.channel, hello(0, 2, deployment="one"))
        code, details = await refused(endpoint.channel, hello=hello(deployment="two"))
        assert code == "RESOURCE_EXHAUSTED"
        assert details.startswith(
            "there is no room for deployment 'two': 1 deployments are the limit of this server "
            "(setting max_deployments): delete some (trimtab deployments delete --unused-for "
        )
        await first.leave()
        await until(lambda: not endpoint.deployments.all())
        # It has had a complete group, and is remembered.
        (last,) = await group(endpoint.channel, workers=1, deployment="three")
        await last.leave()
        await endpoint.deployments.find("three").wait_idle()
        code, details = await refused(endpoint.channel, hello=hello(deployment="four"))
        assert (code, "(setting max_deployments)" in details) == ("RESOURCE_EXHAUSTED", True)


# Sizes.


@pytest.mark.parametrize("kind", ["hello", "report"])
async def test_a_message_over_the_limit_ends_the_session(kind):
    async with endpoint_of(max_message_bytes=4096) as endpoint:
        peer = Peer(endpoint.channel)
        if kind == "hello":
            await peer.say(hello=hello(gpus=[0] * 8192))
        else:
            await peer.say(hello=hello())
            await peer.hear("welcome")
            counts = encode_tensor(np.zeros((256, EXPERTS)), "i8")
            await peer.say(report=pb.Report(seq=1, counts=counts))
        code, details = await peer.end()
        assert code == "RESOURCE_EXHAUSTED"
        assert "larger than max" in details
        await until(lambda: endpoint.server.admission.running(SESSIONS) == 0)
        assert all(not each.sessions for each in endpoint.deployments._by_name.values())


# Silence.


@pytest.mark.parametrize("joins", [False, True])
async def test_a_silent_worker_loses_its_session_after_a_lease(joins):
    async with endpoint_of(lease_seconds=0.2, report_seconds=0.1) as endpoint:
        peer = Peer(endpoint.channel)
        if joins:
            await peer.say(hello=hello())
        assert await peer.end() == SILENT
        assert ("welcome" in peer.seen) == joins
        await until(lambda: endpoint.server.admission.running(SESSIONS) == 0)


async def test_a_drain_does_not_wait_for_a_hello():
    async with endpoint_of(lease_seconds=3600) as endpoint:
        peer = Peer(endpoint.channel)
        await until(lambda: endpoint.server.admission.running(SESSIONS) == 1)
        async with asyncio.timeout(20):
            await endpoint.server.drain()
        assert (await peer.end())[0] == "UNAVAILABLE"


async def test_a_session_does_not_begin_once_the_server_drains():
    async with endpoint_of(lease_seconds=3600) as endpoint:
        deployments, release = endpoint.deployments, threading.Event()
        blocking = asyncio.ensure_future(deployments._store.call(release.wait))
        peer = Peer(endpoint.channel)
        await peer.say(hello=hello())
        await until(deployments._creating.locked)
        draining = asyncio.ensure_future(endpoint.server.drain())
        await until(lambda: deployments._draining)
        release.set()
        await blocking
        assert await peer.end() == ("UNAVAILABLE", "the server is shutting down")
        await draining


# Workers that do not read.


LARGE = {"serves": LARGE_BEFORE, "staging_slots": 64}


@asynccontextmanager
async def stuck(**settings):
    """A group of two, of which the first does not read the offer that it is being sent."""
    async with (
        endpoint_of(**settings) as endpoint,
        grpc.aio.insecure_channel(endpoint.address, NO_ROOM) as channel,
    ):
        first = await joined(channel, hello(0, 2, **LARGE))
        second = await joined(endpoint.channel, hello(1, 2, **LARGE))
        deployment = endpoint.deployments.find("d")
        await until(lambda: deployment.rollout.blocked_reason() is None)
        await deployment.operators.move_to(LARGE_AFTER)
        (outbox,) = (
            each.outbox for each in deployment.sessions if each.request.hello.worker == "w0"
        )
        await until(lambda: "switch" not in outbox._waiting)
        yield endpoint, first, second


def large_report(seq: int) -> pb.Report:
    """Of `stuck`'s model: each expert has had `seq` tokens."""
    shape = len(LARGE_BEFORE.phy2log), LARGE_BEFORE.num_experts
    return pb.Report(seq=seq, last_step=seq, counts=encode_tensor(np.full(shape, seq), "i8"))


async def test_a_worker_that_does_not_read_delays_no_other_worker():
    async with stuck() as (endpoint, _, second):
        await second.hear("offer")
        for seq in range(1, 51):
            await second.say(report=large_report(seq))
            assert (await second.hear("report_ack")).seq == seq
        await endpoint.deployments.find("d").operators.pause("an operator asked")
        await second.hear("abort")


async def test_a_worker_that_reads_late_gets_only_the_latest_of_each_kind():
    async with stuck() as (endpoint, first, _):
        for seq in range(1, 101):
            await first.say(report=large_report(seq))
        deployment = endpoint.deployments.find("d")
        await until(lambda: counted(deployment)[0][0] == 100)
        await deployment.operators.pause("an operator asked")
        first.seen.clear()
        assert (await first.hear("report_ack")).seq == 100
        assert first.seen == ["welcome", "offer", "abort", "report_ack"]


@pytest.mark.slow
async def test_a_worker_that_does_not_read_for_a_lease_loses_its_session():
    async with stuck(lease_seconds=1, report_seconds=0.1) as (endpoint, *peers):

        async def report_on() -> None:
            for seq in range(1, 10**9):
                for peer in peers:
                    await peer.say(report=large_report(seq))

        with structlog.testing.capture_logs() as logs:
            reporting = asyncio.ensure_future(report_on())
            # It has not read the status either.
            await endpoint.observer.until("call_ended", f"{SESSIONS}/Session", "CANCELLED")
            reporting.cancel()
            await asyncio.gather(reporting, return_exceptions=True)
        (end,) = [entry for entry in logs if entry.get("code") == "CANCELLED"]
        assert end["reason"] == "the worker read nothing for 1 s (setting lease_seconds)"


async def test_a_newer_session_replaces_one_that_does_not_read():
    async with stuck(lease_seconds=3600) as (endpoint, first, _):
        await joined(endpoint.channel, hello(0, 2, stream=2, **LARGE))
        deployment = endpoint.deployments.find("d")
        await until(lambda: len(deployment.sessions) == 2)
        await until(lambda: endpoint.server.admission.running(SESSIONS) == 2)
        # When it reads on, it reads why.
        assert await first.end() == ("FAILED_PRECONDITION", "a newer session of this worker began")


@pytest.mark.slow
async def test_a_drain_does_not_wait_for_a_worker_that_does_not_read():
    async with stuck(lease_seconds=3600) as (endpoint, first, second):
        async with asyncio.timeout(20):
            await endpoint.server.drain()
        for peer in (first, second):
            assert (await peer.end())[0] == "UNAVAILABLE"
        assert "drain" in second.seen
