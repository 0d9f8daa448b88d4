"""DeploymentService over a real socket."""

from __future__ import annotations

import grpc
import numpy as np
import pytest

from tests.rpc.endpoint import endpoint_of, retry_seconds, violations
from tests.rpc.peers import (
    AFTER,
    BEFORE,
    EXPERTS,
    GPUS,
    about,
    group,
    hello,
    joined,
    report,
    until,
    version,
)
from tests.servers import make_config
from trimtab.v1 import placement_pb2
from trimtab.v1alpha1 import deployment_service_pb2 as pb
from trimtab.v1alpha1 import deployment_service_pb2_grpc, switch_pb2
from trimtab_protocol.placement import Placement
from trimtab_protocol.wire.tensors import encode_tensor
from trimtab_server.app import App
from trimtab_server.domain.placement import placement_of


@pytest.fixture
async def endpoint():
    async with endpoint_of() as running:
        yield running


def wire(placement: Placement) -> placement_pb2.Placement:
    return placement_pb2.Placement(phy2log=encode_tensor(placement.phy2log, "i4"))


async def trigger(endpoint, **request) -> pb.TriggerResponse:
    stub = deployment_service_pb2_grpc.DeploymentServiceStub(endpoint.channel)
    return await stub.Trigger(pb.TriggerRequest(deployment="d", **request))


async def pause(channel: grpc.aio.Channel, reason: str = "maintenance") -> str:
    """What it was paused for before."""
    stub = deployment_service_pb2_grpc.DeploymentServiceStub(channel)
    answer = await stub.Pause(pb.PauseRequest(deployment="d", reason=reason))
    return str(answer.previous_reason)


async def resume(channel: grpc.aio.Channel) -> str:
    """What it was paused for before."""
    stub = deployment_service_pb2_grpc.DeploymentServiceStub(channel)
    return str((await stub.Resume(pb.ResumeRequest(deployment="d"))).previous_reason)


async def refusal(endpoint, **request) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await trigger(endpoint, **request)
    return error.value.code(), error.value.details()


async def test_a_given_placement_is_offered(endpoint):
    (peer,) = await group(endpoint.channel, workers=1)
    answer = await trigger(endpoint, placement=wire(AFTER))
    assert (answer.in_force, answer.target.digest) == (version(1, 0), AFTER.digest)
    assert (await peer.hear("offer")).digest == AFTER.digest


async def test_without_a_placement_one_is_planned_from_the_counts(endpoint):
    (peer,) = await group(endpoint.channel, workers=1)
    # Experts 0 and 1 have two slots each, and 2 is the one that needs them.
    await peer.say(report=report(1, counts=[10, 10, 1000, 10]))
    await peer.hear("report_ack")
    answer = await trigger(endpoint)
    planned = np.frombuffer(answer.target.phy2log.data, "<i4").reshape(BEFORE.phy2log.shape)
    assert [list(row).count(2) for row in planned] == [2, 2]
    assert (await peer.hear("offer")).digest == answer.target.digest


async def test_a_budget_limits_the_moves(endpoint):
    (peer,) = await group(endpoint.channel, workers=1)
    await peer.say(report=report(1, counts=[0, 10, 1000, 10]))
    await peer.hear("report_ack")
    answer = await trigger(endpoint, budget=placement_pb2.MoveBudget(max_moves=1))
    planned = np.frombuffer(answer.target.phy2log.data, "<i4").reshape(BEFORE.phy2log.shape)
    assert np.count_nonzero(planned != BEFORE.phy2log) == 1


async def test_an_invalid_trigger_is_refused_with_a_reason(endpoint):
    code, said = await refusal(endpoint)
    assert (code, said) == (
        grpc.StatusCode.NOT_FOUND,
        "there is no deployment 'd'",
    )
    await group(endpoint.channel, workers=1)
    code, said = await refusal(endpoint)
    assert (code, said) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "no worker has reported any load yet",
    )
    budget = placement_pb2.MoveBudget(max_moves=1)
    code, said = await refusal(endpoint, placement=wire(AFTER), budget=budget)
    assert (code, said) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "budget: may not be set if placement is",
    )
    small = placement_of(np.array([[0, 1, 2, 3]]), EXPERTS, GPUS)
    code, said = await refusal(endpoint, placement=wire(small))
    assert (code, said) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "placement.phy2log.shape: [1, 4] is not [2, 6]",
    )
    await trigger(endpoint, placement=wire(AFTER))
    code, said = await refusal(endpoint, placement=wire(AFTER))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert said == "the switch to 1.1 is offered: waiting for w0"


PAUSED = (grpc.StatusCode.FAILED_PRECONDITION, "the deployment is paused: maintenance")


async def test_a_pause_aborts_the_offer_and_forbids_offers_until_resume(endpoint):
    (peer,) = await group(endpoint.channel, workers=1)
    await trigger(endpoint, placement=wire(AFTER))
    offer = await peer.hear("offer")
    assert await pause(endpoint.channel) == ""
    assert (await peer.hear("abort")).version == offer.version
    await peer.say(discarded=switch_pb2.Discarded(version=offer.version))
    assert await refusal(endpoint, placement=wire(AFTER)) == PAUSED
    assert await refusal(endpoint) == PAUSED

    assert await resume(endpoint.channel) == "maintenance"
    deployment = endpoint.deployments.find("d")
    await until(lambda: deployment.rollout.blocked_reason() is None)
    await trigger(endpoint, placement=wire(AFTER))
    assert (await peer.hear("offer")).version == version(1, 2)


async def test_a_pause_leaves_a_committed_switch_alone(endpoint):
    (peer,) = await group(endpoint.channel, workers=1)
    await trigger(endpoint, placement=wire(AFTER))
    offer = await peer.hear("offer")
    await peer.say(prepared=switch_pb2.Prepared(**about(offer)))
    await peer.hear("commit")
    await pause(endpoint.channel)
    await peer.say(applied=switch_pb2.Applied(**about(offer), step=1))
    deployment = endpoint.deployments.find("d")
    await until(lambda: deployment.rollout.record.in_force == (1, 1))
    assert "abort" not in peer.seen


async def test_pause_and_resume_can_be_repeated(endpoint):
    await group(endpoint.channel, workers=1)
    assert await resume(endpoint.channel) == ""
    assert await pause(endpoint.channel) == ""
    assert await pause(endpoint.channel, "more of it") == "maintenance"
    assert await resume(endpoint.channel) == "more of it"
    assert await resume(endpoint.channel) == ""
    await trigger(endpoint, placement=wire(AFTER))


async def test_a_pause_by_the_server_can_be_resumed(endpoint):
    await group(endpoint.channel, workers=1)
    # Of a version that has never been, and by a placement that nobody has committed.
    await joined(endpoint.channel, hello(stream=2, in_force=version(1, 7), serves=AFTER))
    code, said = await refusal(endpoint, placement=wire(AFTER))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert said.startswith("the deployment is paused: 'w0' serves with 1.7")
    await joined(endpoint.channel, hello(stream=3, in_force=version(1, 0)))
    assert "serves with 1.7" in await resume(endpoint.channel)
    await trigger(endpoint, placement=wire(AFTER))


@pytest.mark.parametrize("method", [pause, resume])
async def test_an_unknown_deployment_cannot_be_paused_or_resumed(endpoint, method):
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await method(endpoint.channel)
    assert error.value.code() is grpc.StatusCode.NOT_FOUND
    assert error.value.details() == "there is no deployment 'd'"


@pytest.mark.parametrize(
    ("reason", "description"),
    [
        ("", "'' is blank"),
        (" \n", "' \\n' is blank"),
        ("x" * 1001, "has 1001 characters, which is more than 1000"),
    ],
    ids=["empty", "blank", "long"],
)
async def test_a_pause_needs_a_reason(endpoint, reason, description):
    await group(endpoint.channel, workers=1)
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await pause(endpoint.channel, reason)
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert violations(error.value) == {"reason": description}
    # Characters, not bytes; and it was not paused meanwhile.
    assert await pause(endpoint.channel, "\u00e9" * 1000) == ""


@pytest.mark.parametrize("method", [pause, resume])
async def test_a_server_that_warms_up_refuses_pause_and_resume(method):
    async with endpoint_of(opened=False) as endpoint:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await method(endpoint.channel)
        assert error.value.code() is grpc.StatusCode.UNAVAILABLE
        assert retry_seconds(error.value) == 1


async def test_a_pause_outlives_the_server_and_so_does_its_end(tmp_path):
    """Each server is a new one on the same store, with a new group of workers."""
    config = make_config(store=str(tmp_path / "trimtab.db"))
    before = []
    for group_id, ask in (("a", pause), ("b", resume), ("c", resume)):
        async with App(config) as app, grpc.aio.insecure_channel(app.address) as channel:
            await group(channel, workers=1, group_id=group_id)
            before.append(await ask(channel))
    assert before == ["", "maintenance", ""]
