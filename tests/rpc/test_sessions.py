"""Sessions over a real socket: the messages of each side, and the effect of each fault."""

from __future__ import annotations

import numpy as np
import pytest

from tests.rpc.endpoint import Endpoint, endpoint_of
from tests.rpc.peers import (
    Peer,
    about,
    counted,
    group,
    hello,
    joined,
    refused,
    report,
    until,
    version,
)
from tests.rpc.placements import AFTER, BEFORE
from trimtab.v1alpha1 import session_service_pb2 as pb
from trimtab.v1alpha1 import switch_pb2
from trimtab_server.domain.errors import FailedPreconditionError, NotFoundError, UnavailableError
from trimtab_server.rollout.open_switch import Phase
from trimtab_server.store.failpoints import configure


async def test_a_switch_from_hello_to_applied(endpoint):
    peers = await group(endpoint.channel)
    deployment = endpoint.deployments.find("d")
    await deployment.operators.move_to(AFTER)
    for peer in peers:
        offer = await peer.hear("offer")
        assert (offer.version, offer.base) == (version(1, 1), version(1, 0))
        assert (offer.digest, offer.base_digest) == (AFTER.digest, BEFORE.digest)
        await peer.say(accepted=switch_pb2.Accepted(**about(offer)))
        await peer.say(prepared=switch_pb2.Prepared(**about(offer)))
    for peer in peers:
        commit = await peer.apply(step=12)
        assert (commit.version, commit.digest) == (version(1, 1), AFTER.digest)
    await until(lambda: deployment.rollout.phase is Phase.IDLE)
    assert deployment.rollout.record.in_force == (1, 1)


async def test_an_offer_has_the_transfers_of_each_worker(endpoint):
    left, right = await group(endpoint.channel)
    await endpoint.deployments.find("d").operators.move_to(AFTER)
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


async def test_a_plan_that_does_not_fit_is_switched_in_pieces(endpoint):
    (peer,) = await group(endpoint.channel, workers=1, max_layers_per_switch=1)
    deployment = endpoint.deployments.find("d")
    await deployment.operators.move_to(AFTER)
    for generation in (1, 2):
        offer = await peer.prepare()
        assert offer.version == version(1, generation)
        assert offer.layers.shape[0] == 1
        await peer.apply(step=generation)
    await until(lambda: deployment.target is None)
    assert deployment.rollout.phase is Phase.IDLE
    assert deployment.rollout.record.served[1].digest == AFTER.digest


async def test_nothing_is_offered_while_nothing_can_be(endpoint):
    await joined(endpoint.channel, hello(0, 2))
    with pytest.raises(FailedPreconditionError, match="no group is complete"):
        await endpoint.deployments.find("d").operators.move_to(AFTER)
    with pytest.raises(NotFoundError, match="there is no deployment 'other'"):
        endpoint.deployments.find("other")


# Who may join, and with what.


async def test_a_worker_of_another_model_is_refused(endpoint):
    await joined(endpoint.channel, hello(0, 2))
    other = hello(1, 2, bytes_per_expert=101, scope=pb.SCOPE_SOURCE)
    code, details = await refused(endpoint.channel, hello=other)
    assert code == "FAILED_PRECONDITION"
    assert "scope: source is not local; bytes_per_expert: 101 is not 100" in details


async def test_a_gpu_owned_twice_is_refused_for_now(endpoint):
    await joined(endpoint.channel, hello(0, 2))
    answer = await refused(endpoint.channel, hello=hello(1, 2, gpus=[0]))
    assert answer == ("ABORTED", "GPU 0 is owned by 'w0' and 'w1'")


async def test_a_worker_with_another_placement_does_not_join_and_raises_an_alarm(endpoint):
    alarms = []
    endpoint.deployments.observer.alarm = lambda *said, mismatch: alarms.append(said)
    await joined(endpoint.channel, hello(0, 2))
    await joined(endpoint.channel, hello(1, 2, serves=AFTER))
    deployment = endpoint.deployments.find("d")
    assert deployment.rollout.blocked_reason().startswith("placements in force differ (")
    ((name, said),) = alarms
    assert name == "d"
    assert said.startswith("group 'g': placements in force differ (")


async def test_a_server_behind_its_workers_continues_with_higher_numbers(endpoint):
    peer = await joined(endpoint.channel, hello(in_force=version(7, 3)))
    assert (await peer.hear("welcome")).version == version(8, 0)


async def test_a_held_version_that_the_server_does_not_know_is_aborted(endpoint):
    held = switch_pb2.Held(version=version(9, 9), state=switch_pb2.HELD_STATE_PREPARED)
    await group(endpoint.channel, workers=1)
    peer = await joined(endpoint.channel, hello(stream=2, in_force=version(1, 0), held=held))
    assert (await peer.hear("abort")).version == version(9, 9)


async def test_unexpected_answers_have_no_effect(endpoint):
    (peer,) = await group(endpoint.channel, workers=1)
    deployment = endpoint.deployments.find("d")
    await deployment.operators.move_to(AFTER)
    offer = await peer.hear("offer")
    asked = about(offer)
    for wrong in (
        {**asked, "version": version(1, 2)},  # from the future
        {**asked, "version": version(2, 1)},
        {**asked, "version": version(1, 0)},
        {**asked, "digest": BEFORE.digest},
        {**asked, "digest": b""},
    ):
        await peer.say(accepted=switch_pb2.Accepted(**wrong))
        await peer.say(prepared=switch_pb2.Prepared(**wrong))
        await peer.say(refused=switch_pb2.Refused(reason="no", **wrong))
        await peer.say(applied=switch_pb2.Applied(step=1, **wrong))
        await peer.say(discarded=switch_pb2.Discarded(version=wrong["version"]))
    # Before its time.
    await peer.say(applied=switch_pb2.Applied(step=1, **asked))
    await peer.report(1)
    assert deployment.rollout.phase is Phase.OFFERED
    assert deployment.rollout.waiting_for == ("w0",)
    await peer.say(prepared=switch_pb2.Prepared(**asked))
    assert (await peer.hear("commit")).digest == AFTER.digest


async def test_a_newer_stream_replaces_an_older_one_and_not_the_reverse(endpoint):
    (old,) = await group(endpoint.channel, workers=1)
    await joined(endpoint.channel, hello(stream=3))
    assert await old.end() == ("FAILED_PRECONDITION", "a newer session of this worker began")
    code, details = await refused(endpoint.channel, hello=hello(stream=2))
    assert code == "FAILED_PRECONDITION"
    assert "newer session than stream 2" in details


async def test_a_refused_hello_does_not_affect_the_worker_that_it_names(endpoint):
    (peer,) = await group(endpoint.channel, workers=1)
    await peer.report(1, counts=5)
    code, details = await refused(endpoint.channel, hello=hello(incarnation=99))
    assert code == "FAILED_PRECONDITION"
    assert "'g' serves already" in details
    await peer.report(2, counts=7)
    assert counted(endpoint.deployments.find("d")) == [[7] * 4] * 2


async def test_a_mistake_in_the_first_hello_can_be_corrected(endpoint):
    wrong = await joined(endpoint.channel, hello(0, 2, bytes_per_expert=1))
    await wrong.leave()
    await group(endpoint.channel)


async def test_a_group_may_come_back_with_another_spec_of_the_same_sizes(endpoint):
    (peer,) = await group(endpoint.channel, workers=1)
    await peer.leave()
    await group(endpoint.channel, group_id="g2", incarnation=2, bytes_per_expert=200)
    assert endpoint.deployments.find("d").spec.bytes_per_expert == 200


# Reports.


async def test_a_session_begins_with_a_directive():
    async with endpoint_of(report_seconds=3, lease_seconds=9) as endpoint:
        peer = Peer(endpoint.channel)
        await peer.say(hello=hello(0, 2))
        assert await peer.hear("directive") == pb.Directive(
            report_interval_seconds=3, lease_seconds=9
        )
        assert peer.seen == ["directive"]


async def test_a_report_with_a_high_number_counts_and_lower_ones_are_ignored(endpoint):
    # Reports are lost, a million of them or one: the difference is what they all said.
    (peer,) = await group(endpoint.channel, workers=1)
    deployment = endpoint.deployments.find("d")
    await peer.say(report=report(1, counts=5))
    far = report(10**6, counts=900, first_step=2**40, last_step=2**40)
    for message in (far, report(2, counts=6), far):
        await peer.say(report=message)
    await peer.say(report=report(10**6 + 1, counts=901, last_step=2**40))
    while (await peer.hear("report_ack")).seq <= 10**6:
        pass
    assert counted(deployment) == [[901] * 4] * 2
    await peer.say(report=report(10**6 + 2, counts=902, last_step=2**40 - 1))
    code, details = await peer.end()
    assert code == "INVALID_ARGUMENT"
    assert details == f"report.last_step: {2**40 - 1} is before {2**40}, of report 1000001"


async def test_reports_are_acknowledged_once_counted_and_again_if_repeated(endpoint):
    (peer,) = await group(endpoint.channel, workers=1)
    for seq in (1, 2, 2, 1, 3):
        assert await peer.report(seq, counts=seq) >= seq


async def test_counts_continue_over_a_new_stream_and_restart_with_an_incarnation(endpoint):
    (peer,) = await group(endpoint.channel, workers=1)
    assert await peer.report(4, counts=7) == 4
    peer = await joined(endpoint.channel, hello(stream=2))
    assert await peer.report(3, counts=6) == 4
    peer = await joined(endpoint.channel, hello(group_id="g2", incarnation=2))
    assert await peer.report(1, counts=1) == 1


# What ends a switch or a session, and is no fault of a worker.


async def test_an_offer_that_is_not_prepared_in_time_is_aborted():
    async with endpoint_of(offer_seconds=0.2) as endpoint:
        (peer,) = await group(endpoint.channel, workers=1)
        await endpoint.deployments.find("d").operators.move_to(AFTER)
        await peer.hear("offer")
        assert (await peer.hear("abort")).version == version(1, 1)


@pytest.mark.parametrize("stage", ["before", "written", "durable"])
async def test_after_a_failed_save_the_server_continues_from_the_durable_state(stage):
    async with endpoint_of(save_seconds=0.1) as endpoint:
        await continues_after_a_failed_save(endpoint, stage)


async def continues_after_a_failed_save(endpoint: Endpoint, stage: str) -> None:
    peers = await group(endpoint.channel)
    deployment = endpoint.deployments.find("d")
    configure(f"save:{stage}=error")
    try:
        with pytest.raises(UnavailableError, match="the server's store failed"):
            await deployment.operators.move_to(AFTER)
        # The store still fails, so no worker is told of a state that is not durable.
        with pytest.raises(UnavailableError):
            await deployment.operators.pause("an operator asked")
    finally:
        configure("")
    for peer in peers:
        code, said = await peer.end()
        assert (code, said) == ("UNAVAILABLE", f"the server's store failed: failpoint save:{stage}")
    assert not deployment.sessions
    peers = [
        await joined(endpoint.channel, hello(each, 2, stream=2, in_force=version(1, 0)))
        for each in range(2)
    ]
    await deployment.operators.resume()
    await until(lambda: deployment.blocked_reason is None)
    await deployment.operators.move_to(AFTER)
    generation = 2 if stage == "durable" else 1
    assert (await peers[0].hear("offer")).version == version(1, generation)
