"""Sessions over a real socket: what each side may say, and what becomes of each fault."""

from __future__ import annotations

import asyncio

import grpc
import numpy as np
import pytest

from tests.rpc.endpoint import endpoint_of
from tests.rpc.peers import AFTER, BEFORE, Peer, about, group, hello, joined, report, version
from trimtab.v1alpha1 import session_service_pb2 as pb
from trimtab.v1alpha1 import switch_pb2
from trimtab_server.domain.errors import FailedPreconditionError, UnavailableError
from trimtab_server.rollout.rollout import Phase
from trimtab_server.store.failpoints import configure

FAILED, ABORTED = grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.ABORTED


async def until(deployment, condition) -> None:
    """Wait for something that the server does by itself."""
    async with asyncio.timeout(20):
        while not condition():
            await deployment.changed()


@pytest.fixture
async def endpoint():
    async with endpoint_of() as running:
        yield running


async def test_a_switch_from_hello_to_applied(endpoint):
    peers = await group(endpoint.channel)
    deployment = endpoint.deployments.find("d")
    await deployment.move_to(AFTER)
    for peer in peers:
        offer = await peer.hear("offer")
        assert (offer.version, offer.base) == (version(1, 1), version(1, 0))
        assert (offer.digest, offer.base_digest) == (AFTER.digest, BEFORE.digest)
        await peer.say(accepted=switch_pb2.Accepted(**about(offer)))
        await peer.say(prepared=switch_pb2.Prepared(**about(offer)))
    for peer in peers:
        commit = await peer.hear("commit")
        assert (commit.version, commit.digest) == (version(1, 1), AFTER.digest)
        await peer.say(applied=switch_pb2.Applied(step=12, **about(commit)))
    await until(deployment, lambda: deployment.rollout.phase is Phase.IDLE)
    assert deployment.rollout.record.in_force == (1, 1)


async def test_an_offer_says_to_each_worker_what_it_has_to_do(endpoint):
    left, right = await group(endpoint.channel)
    await endpoint.deployments.find("d").move_to(AFTER)
    offer = await right.hear("offer")
    assert np.frombuffer(offer.layers.data, "<i4").tolist() == [0, 1]
    assert np.frombuffer(offer.old_rows.data, "<i4").tolist() == [0, 1, 2, 3, 0, 1] * 2
    assert np.frombuffer(offer.new_rows.data, "<i4").tolist() == AFTER.phy2log.ravel().tolist()
    # Layer 0: expert 2 comes from GPU 0. Layer 1: 0 and 3 change places on GPU 1.
    assert np.frombuffer(offer.receives.data, "<i4").tolist() == [0, 5, 2]
    assert np.frombuffer(offer.receive_sources.data, "<i4").tolist() == [0]
    assert np.frombuffer(offer.copies.data, "<i4").tolist() == [1, 4, 3, 0, 1, 3, 4, 3]
    assert offer.bytes == 100
    offer = await left.hear("offer")
    assert np.frombuffer(offer.receives.data, "<i4").tolist() == [1, 0, 3]
    assert np.frombuffer(offer.sends.data, "<i4").tolist() == [0, 2, 5, 2]


async def test_a_plan_that_does_not_fit_comes_in_pieces(endpoint):
    (peer,) = await group(endpoint.channel, workers=1, max_layers_per_switch=1)
    deployment = endpoint.deployments.find("d")
    await deployment.move_to(AFTER)
    for generation in (1, 2):
        offer = await peer.hear("offer")
        assert offer.version == version(1, generation)
        assert offer.layers.shape[0] == 1
        await peer.say(prepared=switch_pb2.Prepared(**about(offer)))
        await peer.hear("commit")
        await peer.say(applied=switch_pb2.Applied(step=generation, **about(offer)))
    await until(deployment, lambda: deployment.rollout.phase is Phase.IDLE)
    assert deployment.rollout.record.served[1].digest == AFTER.digest
    assert deployment.target is None


async def test_nothing_is_offered_where_nothing_can_be(endpoint):
    await joined(endpoint.channel, hello(0, 2))
    with pytest.raises(FailedPreconditionError, match="no group is complete"):
        await endpoint.deployments.find("d").move_to(AFTER)
    with pytest.raises(FailedPreconditionError, match="'other' has had no session"):
        endpoint.deployments.find("other")


# What is wrong is said, by field and value.


@pytest.mark.parametrize(
    ("changes", "field", "said"),
    [
        ({"deployment": ""}, "hello.deployment", "'' has not 1 to 200 characters"),
        ({"worker": "w" * 201}, "hello.worker", "has not 1 to 200 characters"),
        ({"stream": 0}, "hello.stream", "0 is below 1"),
        ({"gpus": []}, "hello.gpus", "is empty"),
        ({"gpus": [1, 0]}, "hello.gpus", "[1, 0] does not rise"),
        ({"gpus": [0, 2]}, "hello.gpus", "[0, 2] is not below num_gpus = 2"),
        ({"scope": 0}, "hello.scope", "0 is not a known one"),
        ({"transfer": 9}, "hello.transfer", "9 is not a known one"),
        ({"staging_slots": 0}, "hello.staging_slots", "0 is below 1"),
        ({"num_experts": 5}, "hello.placement.phy2log", "expert 4 has no slot in layer 0"),
        ({"placement": None}, "hello.placement", "is required"),
        ({"held": switch_pb2.Held()}, "hello.held.state", "0 is not a known one"),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_a_hello_that_cannot_be_is_named(endpoint, changes, field, said):
    peer = Peer(endpoint.channel)
    await peer.say(hello=hello(**changes))
    code, details = await peer.end()
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert field in details
    assert said in details


async def test_a_placement_with_another_digest_is_named(endpoint):
    message = hello()
    message.placement.digest = bytes(32)
    peer = Peer(endpoint.channel)
    await peer.say(hello=message)
    code, details = await peer.end()
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert f"hello.placement.digest: {'00' * 32} is not the placement's" in details


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"goodbye": pb.Goodbye()}, "hello: has to be the first message of the stream"),
        ({}, "hello: has to be the first message of the stream"),
    ],
    ids=["goodbye", "nothing"],
)
async def test_a_stream_begins_with_hello(endpoint, message, said):
    peer = Peer(endpoint.channel)
    await peer.say(**message)
    assert await peer.end() == (grpc.StatusCode.INVALID_ARGUMENT, said)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"hello": hello()}, "hello: was said already"),
        ({}, "message: None is nothing that may be said here"),
        ({"prepared": switch_pb2.Prepared()}, "prepared.version: is required"),
        ({"report": report(0)}, "report.seq: 0 is below 1"),
        ({"report": pb.Report(seq=1)}, "report.counts: is required"),
        ({"report": report(2, counts=-1)}, "report.counts[0, 0]: -1 is below 5, of report 1"),
        ({"report": report(2, last_step=0)}, "report.last_step: 0 is before 1, of report 1"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_a_message_that_cannot_be_ends_the_session(endpoint, message, said):
    (peer,) = await group(endpoint.channel, workers=1)
    await peer.say(report=report(1, counts=5))
    await peer.hear("report_ack")
    await peer.say(**message)
    code, details = await peer.end()
    assert (code, details) == (grpc.StatusCode.INVALID_ARGUMENT, said)


async def test_a_worker_of_another_model_is_refused(endpoint):
    await joined(endpoint.channel, hello(0, 2))
    peer = Peer(endpoint.channel)
    await peer.say(hello=hello(1, 2, bytes_per_expert=101, scope=pb.SCOPE_SOURCE))
    code, details = await peer.end()
    assert code is FAILED
    assert "scope: source is not local; bytes_per_expert: 101 is not 100" in details


async def test_a_gpu_owned_twice_is_refused_for_now(endpoint):
    await joined(endpoint.channel, hello(0, 2))
    peer = Peer(endpoint.channel)
    await peer.say(hello=hello(1, 2, gpus=[0]))
    assert await peer.end() == (ABORTED, "GPU 0 is owned by 'w0' and 'w1'")


async def test_a_newer_stream_takes_over_and_an_older_one_cannot(endpoint):
    (old,) = await group(endpoint.channel, workers=1)
    await joined(endpoint.channel, hello(stream=3))
    code, details = await old.end()
    assert (code, details) == (FAILED, "a newer session of this worker began")
    late = Peer(endpoint.channel)
    await late.say(hello=hello(stream=2))
    code, details = await late.end()
    assert code is FAILED
    assert "newer session than stream 2" in details


# Reports.


async def test_reports_are_acknowledged_once_counted_and_again_if_repeated(endpoint):
    (peer,) = await group(endpoint.channel, workers=1)
    for seq in (1, 2, 2, 1, 3):
        await peer.say(report=report(seq, counts=seq))
        assert (await peer.hear("report_ack")).seq >= seq


async def test_counts_go_on_over_a_new_stream_and_begin_anew_with_an_incarnation(endpoint):
    (peer,) = await group(endpoint.channel, workers=1)
    await peer.say(report=report(4, counts=7))
    assert (await peer.hear("report_ack")).seq == 4
    peer = await joined(endpoint.channel, hello(stream=2))
    await peer.say(report=report(3, counts=6))
    assert (await peer.hear("report_ack")).seq == 4
    peer = await joined(endpoint.channel, hello(group_id="g2", incarnation=2))
    await peer.say(report=report(1, counts=1))
    assert (await peer.hear("report_ack")).seq == 1


async def test_a_worker_that_does_not_read_slows_nobody_down(endpoint):
    # Its own acknowledgements are more than flow control lets in.
    stuck, other = await group(endpoint.channel)
    for seq in range(1, 2001):
        await stuck.say(report=report(seq, counts=seq))
    for seq in range(1, 51):
        await other.say(report=report(seq, counts=seq))
        assert (await other.hear("report_ack")).seq == seq
    assert (await stuck.hear("report_ack")).seq >= 1


# Faults, in each state that a switch can be in.


async def break_off(peer, fault):
    match fault:
        case "cancel":
            peer.call.cancel()
        case "half-close":
            await peer.call.done_writing()
        case "goodbye":
            await peer.say(goodbye=pb.Goodbye(reason="enough"))
        case "vanish":
            await peer.channel.close()
        case "nonsense":
            await peer.say()


async def bring_to(endpoint, peers, state):
    """Take the group as far as `state`; the first peer is the one that will fail."""
    if state == "idle":
        return
    if state == "mid-report":
        await peers[0].say(report=report(1))
        return
    await endpoint.deployments.find("d").move_to(AFTER)
    offers = [await peer.hear("offer") for peer in peers]
    if state == "offered":
        return
    ready = peers[:1] if state == "prepared" else peers
    for peer, offer in zip(ready, offers, strict=False):
        await peer.say(prepared=switch_pb2.Prepared(**about(offer)))
    if state == "prepared":
        deployment = endpoint.deployments.find("d")
        rollout = deployment.rollout
        await until(deployment, lambda: rollout.waiting_for == ("w1",))
    else:
        for peer in peers:
            await peer.hear("commit")
    if state == "applied by the others":
        await peers[1].say(applied=switch_pb2.Applied(step=1, **about(offers[1])))


@pytest.mark.parametrize("fault", ["cancel", "half-close", "goodbye", "vanish", "nonsense"])
@pytest.mark.parametrize(
    "state", ["idle", "mid-report", "offered", "prepared", "committed", "applied by the others"]
)
async def test_a_lost_worker_comes_back_and_the_switch_ends_as_it_must(endpoint, state, fault):
    async with grpc.aio.insecure_channel(endpoint.address) as channel:
        first = await joined(channel, hello(0, 2))
        first.channel = channel
        second = await joined(endpoint.channel, hello(1, 2))
        for peer in (first, second):
            await peer.hear("welcome")
        await bring_to(endpoint, (first, second), state)
        deployment = endpoint.deployments.find("d")
        await break_off(first, fault)
        await until(deployment, lambda: len(deployment.connections) == 1)
    rollout = deployment.rollout
    committed = state in ("committed", "applied by the others")
    if state in ("offered", "prepared"):
        assert (await second.hear("abort")).version == version(1, 1)
        assert rollout.phase is Phase.ABORTING
        await second.say(discarded=switch_pb2.Discarded(version=version(1, 1)))
    elif committed:
        assert rollout.phase is Phase.COMMITTED
    # It comes back, with what it had.
    held = None
    if state in ("offered", "prepared", "committed", "applied by the others"):
        had = switch_pb2.HELD_STATE_ARMED if committed else switch_pb2.HELD_STATE_PREPARED
        held = switch_pb2.Held(version=version(1, 1), state=had)
    back = await joined(endpoint.channel, hello(0, 2, stream=2, in_force=version(1, 0), held=held))
    await back.hear("welcome")
    if committed:
        commit = await back.hear("commit")
        peers = (back,) if state == "applied by the others" else (back, second)
        for peer in peers:
            await peer.say(applied=switch_pb2.Applied(step=1, **about(commit)))
    elif held is not None:
        abort = await back.hear("abort")
        await back.say(discarded=switch_pb2.Discarded(version=abort.version))
    await until(deployment, lambda: rollout.why_not() is None)
    assert rollout.record.in_force == (version_of(1) if committed else version_of(0))
    assert len(deployment.connections) == 2


def version_of(generation: int) -> tuple[int, int]:
    return 1, generation


async def test_a_worker_that_says_nothing_loses_its_session():
    async with endpoint_of(lease_seconds=0.2, report_seconds=0.1) as endpoint:
        (peer,) = await group(endpoint.channel, workers=1)
        assert await peer.end() == (ABORTED, "no message came for 0.2 s")


async def test_a_call_with_a_deadline_is_a_lost_session(endpoint):
    peer = Peer(endpoint.channel, timeout=0.3)
    await peer.say(hello=hello())
    await peer.hear("welcome")
    assert (await peer.end())[0] is grpc.StatusCode.DEADLINE_EXCEEDED
    deployment = endpoint.deployments.find("d")
    await until(deployment, lambda: not deployment.connections)


async def test_an_offer_that_is_not_prepared_in_time_is_aborted():
    async with endpoint_of(offer_seconds=0.2) as endpoint:
        (peer,) = await group(endpoint.channel, workers=1)
        await endpoint.deployments.find("d").move_to(AFTER)
        await peer.hear("offer")
        assert (await peer.hear("abort")).version == version(1, 1)


async def test_more_sessions_than_there_may_be_are_refused():
    async with endpoint_of(max_sessions=1) as endpoint:
        await joined(endpoint.channel, hello(0, 2))
        peer = Peer(endpoint.channel)
        await peer.say(hello=hello(1, 2))
        assert (await peer.end())[0] is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("state", ["idle", "offered", "committed"])
async def test_a_server_that_drains_says_so_and_ends_the_sessions(endpoint, state):
    peers = await group(endpoint.channel)
    await bring_to(endpoint, peers, state)
    draining = asyncio.ensure_future(endpoint.server.drain())
    for peer in peers:
        assert (await peer.hear("drain")).seconds > 0
        assert (await peer.end())[0] is grpc.StatusCode.UNAVAILABLE
        assert ("abort" in peer.seen) == (state == "offered")
    await draining


@pytest.mark.parametrize("stage", ["before", "written", "durable"])
async def test_where_the_store_fails_the_server_goes_on_from_what_is_durable(endpoint, stage):
    peers = await group(endpoint.channel)
    deployment = endpoint.deployments.find("d")
    configure(f"save:{stage}=error")
    try:
        with pytest.raises(UnavailableError, match="the server's store failed"):
            await deployment.move_to(AFTER)
        # It still fails: nobody is told what may not be so.
        with pytest.raises(UnavailableError):
            await deployment.pause("an operator asked")
    finally:
        configure("")
    for peer in peers:
        code, details = await peer.end()
        assert (code, details) == (grpc.StatusCode.UNAVAILABLE, "the server's store failed")
    assert not deployment.connections
    peers = [
        await joined(endpoint.channel, hello(each, 2, stream=2, in_force=version(1, 0)))
        for each in range(2)
    ]
    await deployment.resume()
    assert deployment.rollout.why_not() is None
    await deployment.move_to(AFTER)
    generation = 2 if stage == "durable" else 1
    assert (await peers[0].hear("offer")).version == version(1, generation)
