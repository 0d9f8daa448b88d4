"""No kind of call, and no peer, can shut out the others; streams that do nothing end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.rpc.endpoint import (
    NO_ROOM,
    Endpoint,
    endpoint_of,
    failure,
    pack_request,
    place_request,
    retry_seconds,
    skewed_load,
)
from tests.rpc.peers import group, hello, joined, refused, until
from tests.servers import make_config
from trimtab.v1 import solver_service_pb2 as pb
from trimtab.v1 import solver_service_pb2_grpc, topology_pb2
from trimtab.v1alpha1 import deployment_service_pb2 as operators_pb
from trimtab.v1alpha1 import engine_service_pb2 as engines_pb
from trimtab.v1alpha1.deployment_service_pb2_grpc import DeploymentServiceStub
from trimtab.v1alpha1.engine_service_pb2_grpc import EngineServiceStub
from trimtab_protocol.wire.tensors import encode_tensor
from trimtab_server.domain.errors import ResourceExhaustedError
from trimtab_server.rpc.admission import OPERATORS, SESSIONS, SOLVER, TRIGGER, Admission

CONFIG = pb.PlaceStreamRequest(
    config=pb.PlaceStreamConfig(topology=topology_pb2.Topology(num_replicas=20, num_gpus=4))
)


@asynccontextmanager
async def connected(endpoint: Endpoint) -> AsyncIterator[grpc.aio.Channel]:
    """A connection of its own: channels to the same address would else share one."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(endpoint.address, options=options) as channel:
        yield channel


async def idle_streams(endpoint: Endpoint, channel: grpc.aio.Channel, number: int) -> list[Any]:
    """Streams of loads that were admitted and then send nothing."""
    stub = solver_service_pb2_grpc.SolverServiceStub(channel)
    before = endpoint.server.admission.running(SOLVER)
    calls = [stub.PlaceStream() for _ in range(number)]
    for call in calls:
        await call.write(CONFIG)
    await until(lambda: endpoint.server.admission.running(SOLVER) == before + number)
    return calls


async def test_idle_streams_that_take_all_solver_calls_leave_room_for_all_others() -> None:
    async with endpoint_of(max_concurrent_rpcs=4, peer_share=1) as endpoint:
        await idle_streams(endpoint, endpoint.channel, 4)
        error = await failure(endpoint.stub.Pack(pack_request()), "RESOURCE_EXHAUSTED")
        assert "setting max_concurrent_rpcs" in str(error.details())
        assert retry_seconds(error) > 0

        operators = DeploymentServiceStub(endpoint.channel)
        await operators.ListDeployments(operators_pb.ListDeploymentsRequest())
        engines = EngineServiceStub(endpoint.channel)
        # Admitted, and then refused for what it says.
        await failure(engines.Rebalance(engines_pb.RebalanceRequest()), "INVALID_ARGUMENT")
        health = health_pb2_grpc.HealthStub(endpoint.channel)
        await health.Check(health_pb2.HealthCheckRequest())
        await group(endpoint.channel)


async def test_operators_that_take_all_their_calls_leave_room_for_all_others() -> None:
    async with endpoint_of(max_operator_rpcs=1) as endpoint, endpoint.busy() as release:
        operators = DeploymentServiceStub(endpoint.channel)
        peers = await group(endpoint.channel)
        for peer in peers:
            await peer.report(1)
        waiting = operators.Trigger(operators_pb.TriggerRequest(deployment="d"))
        await until(lambda: endpoint.server.admission.running(TRIGGER) == 1)
        second = operators.Trigger(operators_pb.TriggerRequest(deployment="d"))
        error = await failure(second, "RESOURCE_EXHAUSTED")
        assert "setting max_operator_rpcs" in str(error.details())
        placing = endpoint.stub.Place(place_request())
        await until(lambda: endpoint.server.admission.running(SOLVER) == 1)
        release.set()
        await asyncio.gather(placing, waiting, return_exceptions=True)
        await placing


async def test_calls_of_operators_beyond_their_limit_are_refused() -> None:
    config = make_config(max_operator_rpcs=1)
    admission = Admission(config.rpc, config.sessions)
    admission.open()
    with admission.admitted(f"{OPERATORS}/ListDeployments", "unix:"):
        with (
            pytest.raises(ResourceExhaustedError, match="setting max_operator_rpcs"),
            admission.admitted(f"{OPERATORS}/GetDeployment", "unix:"),
        ):
            pass
        # Not counted: it says how the server is.
        with admission.admitted(f"{OPERATORS}/GetServerStatus", "unix:"):
            assert admission.running(OPERATORS) == 1
    with admission.admitted(f"{OPERATORS}/GetDeployment", "unix:"):
        assert admission.running(OPERATORS) == 1


async def test_operators_that_wait_for_a_switch_leave_room_for_other_operators() -> None:
    async with endpoint_of(max_operator_rpcs=1) as endpoint:
        operators = DeploymentServiceStub(endpoint.channel)
        peers = await group(endpoint.channel)
        await peers[1].leave("cancel")
        request = operators_pb.TriggerRequest(deployment="d", wait_seconds=3600)
        waiting = operators.Trigger(request)
        await until(lambda: endpoint.server.admission.running(TRIGGER) == 1)
        await operators.GetDeployment(operators_pb.GetDeploymentRequest(deployment="d"))
        waiting.cancel()
        await until(lambda: endpoint.server.admission.running(TRIGGER) == 0)


async def test_one_peer_gets_its_share_and_another_one_is_served() -> None:
    async with endpoint_of(max_concurrent_rpcs=4) as endpoint, connected(endpoint) as another:
        await idle_streams(endpoint, endpoint.channel, 2)
        error = await failure(endpoint.stub.Pack(pack_request()), "RESOURCE_EXHAUSTED")
        assert "2 such calls of" in str(error.details())
        assert "peer_share" in str(error.details())
        await solver_service_pb2_grpc.SolverServiceStub(another).Pack(pack_request())


async def test_one_peer_gets_its_share_of_sessions_and_of_watches() -> None:
    async with (
        endpoint_of(max_sessions=2, max_watches=2) as endpoint,
        connected(endpoint) as another,
        AsyncExitStack() as stack,
    ):
        await joined(endpoint.channel, hello(0, 2))
        code, _ = await refused(endpoint.channel, hello=hello(1, 2))
        assert code == "RESOURCE_EXHAUSTED"
        await joined(another, hello(1, 2))
        assert endpoint.server.admission.running(SESSIONS) == 2
        request = operators_pb.WatchPlacementRequest(deployment="d")
        watch = DeploymentServiceStub(endpoint.channel).WatchPlacement(request)
        stack.callback(watch.cancel)
        await watch.read()
        second = DeploymentServiceStub(endpoint.channel).WatchPlacement(request)
        await failure(second.read(), "RESOURCE_EXHAUSTED")
        third = DeploymentServiceStub(another).WatchPlacement(request)
        stack.callback(third.cancel)
        await third.read()


async def test_a_peer_that_ends_its_calls_may_begin_others() -> None:
    async with endpoint_of(max_concurrent_rpcs=2) as endpoint:
        for _ in range(3):
            (call,) = await idle_streams(endpoint, endpoint.channel, 1)
            await failure(endpoint.stub.Pack(pack_request()), "RESOURCE_EXHAUSTED")
            call.cancel()
            await until(lambda: endpoint.server.admission.running(SOLVER) == 0)


@pytest.mark.parametrize("kind", ["health", "reflection"])
async def test_watches_of_health_and_reflection_have_a_limit_too(kind: str) -> None:
    async with endpoint_of(max_watches=1) as endpoint, connected(endpoint) as another:

        async def begun(channel: grpc.aio.Channel) -> Any:
            if kind == "health":
                return health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo()
            with suppress(grpc.RpcError):  # which the read tells too
                await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
            return call

        first = await begun(endpoint.channel)
        await first.read()
        await failure((await begun(another)).read(), "RESOURCE_EXHAUSTED")
        # Neither takes a watch of a placement's room.
        await group(endpoint.channel)
        request = operators_pb.WatchPlacementRequest(deployment="d")
        watch = DeploymentServiceStub(endpoint.channel).WatchPlacement(request)
        await watch.read()
        watch.cancel()
        first.cancel()


async def test_idle_reflection_leaves_room_for_watches_of_health() -> None:
    async with endpoint_of(max_watches=1) as endpoint, connected(endpoint) as another:
        reflection = reflection_pb2_grpc.ServerReflectionStub(endpoint.channel)
        idle = reflection.ServerReflectionInfo()
        await idle.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        await idle.read()
        watch = health_pb2_grpc.HealthStub(another).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        watch.cancel()
        idle.cancel()


@pytest.mark.parametrize("sent", ["nothing", "config", "load"])
async def test_a_stream_that_sends_nothing_ends_and_says_why(sent: str) -> None:
    async with endpoint_of(idle_stream_seconds=0.2) as endpoint:
        call = endpoint.stub.PlaceStream()
        if sent != "nothing":
            await call.write(CONFIG)
        if sent == "load":
            load = pb.PlaceStreamLoad(id=1, load=encode_tensor(skewed_load(), "f8"))
            await call.write(pb.PlaceStreamRequest(load=load))
            assert (await call.read()).id == 1
        error = await failure(call.read(), "ABORTED")
        assert "setting idle_stream_seconds" in str(error.details())
        await until(lambda: endpoint.server.admission.running(SOLVER) == 0)


async def test_a_stream_whose_client_does_not_read_ends() -> None:
    async with (
        endpoint_of(idle_stream_seconds=0.5) as endpoint,
        grpc.aio.insecure_channel(endpoint.address, NO_ROOM) as channel,
    ):
        call = solver_service_pb2_grpc.SolverServiceStub(channel).PlaceStream()
        await call.write(CONFIG)
        load = pb.PlaceStreamLoad(id=1, load=encode_tensor(skewed_load(layers=256), "f8"))

        async def send_without_reading() -> None:
            while True:
                await call.write(pb.PlaceStreamRequest(load=load))

        sending = asyncio.ensure_future(send_without_reading())
        # It does not read the status either, so the call counts as cancelled.
        await endpoint.observer.until("call_ended", f"{SOLVER}/PlaceStream", "CANCELLED")
        assert endpoint.server.admission.running(SOLVER) == 0
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


@pytest.mark.parametrize(
    ("first", "second", "is_one"),
    [
        ("ipv4:10.0.0.1:1000", "ipv4:10.0.0.1:2000", True),
        ("ipv4:10.0.0.1:1000", "ipv4:10.0.0.2:1000", False),
        ("ipv6:%5B2001:db8::1%5D:1000", "ipv6:%5B2001:db8::1%5D:2000", True),
        ("ipv6:%5B2001:db8::1%5D:1000", "ipv6:%5B2001:db8::2%5D:1000", False),
        # All programs of this host have this address.
        ("ipv4:127.0.0.1:1000", "ipv4:127.0.0.1:2000", False),
        ("ipv6:%5B::1%5D:1000", "ipv6:%5B::1%5D:2000", False),
        # These cannot be told apart, so they have no limit but the one for all.
        ("unix:", "unix:", False),
    ],
)
async def test_a_peer_is_a_host_or_on_this_host_a_connection(
    first: str, second: str, is_one: bool
) -> None:
    config = make_config(max_concurrent_rpcs=2)
    admission = Admission(config.rpc, config.sessions)
    admission.open()
    with admission.admitted(f"{SOLVER}/Pack", first):
        if is_one:
            with (
                pytest.raises(ResourceExhaustedError, match="limit for one peer"),
                admission.admitted(f"{SOLVER}/Pack", second),
            ):
                pass
        else:
            with admission.admitted(f"{SOLVER}/Pack", second):
                assert admission.running(SOLVER) == 2
