"""DeploymentService over a real socket."""

from __future__ import annotations

import grpc
import numpy as np
import pytest

from tests.rpc.endpoint import endpoint_of
from tests.rpc.peers import AFTER, BEFORE, EXPERTS, GPUS, group, report, version
from trimtab.v1 import placement_pb2
from trimtab.v1alpha1 import deployment_service_pb2 as pb
from trimtab.v1alpha1 import deployment_service_pb2_grpc
from trimtab_server.domain.placement import Placement
from trimtab_server.rpc.tensors import encode_tensor


@pytest.fixture
async def endpoint():
    async with endpoint_of() as running:
        yield running


def wire(placement: Placement) -> placement_pb2.Placement:
    return placement_pb2.Placement(phy2log=encode_tensor(placement.phy2log, "i4"))


async def trigger(endpoint, **request) -> pb.TriggerResponse:
    stub = deployment_service_pb2_grpc.DeploymentServiceStub(endpoint.channel)
    return await stub.Trigger(pb.TriggerRequest(deployment="d", **request))


async def refusal(endpoint, **request) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await trigger(endpoint, **request)
    return error.value.code(), error.value.details()


async def test_a_placement_that_is_given_is_offered(endpoint):
    (peer,) = await group(endpoint.channel, workers=1)
    answer = await trigger(endpoint, placement=wire(AFTER))
    assert (answer.in_force, answer.target.digest) == (version(1, 0), AFTER.digest)
    assert (await peer.hear("offer")).digest == AFTER.digest


async def test_without_one_it_is_planned_from_the_counts(endpoint):
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


async def test_what_cannot_be_triggered_is_said(endpoint):
    code, said = await refusal(endpoint)
    assert (code, said) == (
        grpc.StatusCode.FAILED_PRECONDITION,
        "deployment 'd' has had no session yet",
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
        "budget: has no meaning beside a placement",
    )
    small = Placement.of(np.array([[0, 1, 2, 3]]), EXPERTS, GPUS)
    code, said = await refusal(endpoint, placement=wire(small))
    assert (code, said) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "placement.phy2log.shape: [1, 4] is not [2, 6]",
    )
    await trigger(endpoint, placement=wire(AFTER))
    code, said = await refusal(endpoint, placement=wire(AFTER))
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert said == "the switch to 1.1 is offered, by w0 not"
