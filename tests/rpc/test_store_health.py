"""While the store fails, the server says so, and only what needs no store goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.rpc.endpoint import Endpoint, endpoint_of, failure, place_request
from tests.rpc.peers import group, hello, refused, until
from tests.rpc.placements import AFTER
from tests.rpc.test_healthcheck import complaint
from tests.rpc.test_server import NOT_SERVING, SERVING, health
from tests.servers import make_config
from trimtab.v1alpha1 import deployment_service_pb2 as pb
from trimtab.v1alpha1.deployment_service_pb2_grpc import DeploymentServiceStub
from trimtab_protocol.wire.values import encode_placement
from trimtab_server.rpc.admission import SOLVER
from trimtab_server.rpc.healthcheck import health_complaint
from trimtab_server.rpc.server import SERVICES
from trimtab_server.store.failpoints import configure

WHY = "failpoint save:before"


@pytest.fixture(autouse=True)
def _failpoints_are_off() -> Iterator[None]:
    yield
    configure("")


async def fail(endpoint: Endpoint) -> DeploymentServiceStub:
    """A group is served, and then the store fails, until the failpoints are off."""
    await group(endpoint.channel)
    operators = DeploymentServiceStub(endpoint.channel)
    configure("save:before=error,probe:before=error")
    pausing = operators.Pause(pb.PauseRequest(deployment="d", reason="r"))
    error = await failure(pausing, "UNAVAILABLE")
    assert error.details() == f"the server's store failed: {WHY}"
    return operators


async def test_health_is_that_of_the_store_but_for_the_solver() -> None:
    async with endpoint_of(save_seconds=0.1) as endpoint:
        watch = health_pb2_grpc.HealthStub(endpoint.channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == SERVING
        await fail(endpoint)
        assert (await watch.read()).status == NOT_SERVING
        await until(lambda: not endpoint.server._store_changed.is_set())
        said = {name: await health(endpoint.channel, name) for name in ("", *SERVICES)}
        assert said.pop(SOLVER) == SERVING
        assert set(said.values()) == {NOT_SERVING}
        assert (await endpoint.stub.Place(place_request())).placement.digest
        configure("")
        assert (await watch.read()).status == SERVING
        for name in SERVICES:
            assert await health(endpoint.channel, name) == SERVING


async def test_all_who_ask_are_told_how_the_store_fails() -> None:
    async with endpoint_of(save_seconds=3600) as endpoint:
        operators = await fail(endpoint)
        status = await operators.GetServerStatus(pb.GetServerStatusRequest())
        assert status.store_failure in (WHY, "failpoint probe:before")
        assert status.version
        assert status.term == 1
        assert status.uptime_seconds > 0
        assert status.deployments == 1
        why = f"the store fails: {WHY}"
        found = await operators.GetDeployment(pb.GetDeploymentRequest(deployment="d"))
        listed = await operators.ListDeployments(pb.ListDeploymentsRequest())
        for each in (found.deployment, *listed.deployments):
            assert each.status.not_ready == why
        for placement in (None, encode_placement(AFTER)):
            request = pb.TriggerRequest(deployment="d", placement=placement)
            error = await failure(operators.Trigger(request), "FAILED_PRECONDITION")
            assert error.details() == why
        code, said = await refused(endpoint.channel, hello=hello(deployment="new"))
        assert (code, said) == ("UNAVAILABLE", f"the server's store failed: {WHY}")
        assert await complaint(endpoint.address) == f"{endpoint.address}: NOT_SERVING: {why}"
        config = make_config(listen=endpoint.address).rpc
        assert await asyncio.to_thread(health_complaint, config, needs_store=False) is None


async def test_a_record_that_is_saved_shows_that_the_store_works() -> None:
    async with endpoint_of(save_seconds=3600) as endpoint:
        operators = await fail(endpoint)
        configure("")
        await operators.Pause(pb.PauseRequest(deployment="d", reason="r"))
        status = await operators.GetServerStatus(pb.GetServerStatusRequest())
        assert not status.store_failure
        await until(lambda: not endpoint.server._store_changed.is_set())
        assert await health(endpoint.channel) == SERVING


async def test_the_status_of_the_server_is_told_while_it_warms_up_and_drains() -> None:
    async with endpoint_of(opened=False) as endpoint:
        operators = DeploymentServiceStub(endpoint.channel)
        for step in (endpoint.server.open, endpoint.server.drain):
            assert (await operators.GetServerStatus(pb.GetServerStatusRequest())).term == 1
            await step()
        assert (await operators.GetServerStatus(pb.GetServerStatusRequest())).term == 1
        assert await health(endpoint.channel) == NOT_SERVING


async def test_counters_that_cannot_be_saved_for_long_are_one_alarm(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with endpoint_of(save_seconds=0.1) as endpoint:
        alarms: list[str] = []
        failures: list[None] = []
        told = endpoint.deployments.observer
        monkeypatch.setattr(told, "alarm", lambda _, reason, **__: alarms.append(reason))
        monkeypatch.setattr(told, "store_failed", lambda: failures.append(None))
        (peer,) = await group(endpoint.channel, 1)
        for times in (1, 2):
            configure("save_counters:before=error,probe:before=error")
            before = len(failures)
            await peer.report(times)
            await until(lambda before=before: len(failures) >= before + 3)
            why = "counters were not saved: failpoint save_counters:before"
            assert alarms == [why] * times
            configure("")
            await until(lambda: endpoint.deployments.store_health.failure is None)
            loads = endpoint.deployments.find("d")._core.loads
            await until(lambda loads=loads: loads.unsaved() is None)
