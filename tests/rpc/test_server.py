"""The endpoint around the methods: health, drain, reflection, TLS, addresses."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from tests.rpc.endpoint import (
    PKI,
    TLS,
    Endpoint,
    endpoint_of,
    failure,
    pack_request,
    place_request,
    retry_seconds,
)
from trimtab.v1alpha1 import deployment_service_pb2, deployment_service_pb2_grpc
from trimtab_server.domain.errors import InvalidArgumentError
from trimtab_server.rpc.admission import SOLVER

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def health(channel: grpc.aio.Channel, service: str = "") -> int:
    request = health_pb2.HealthCheckRequest(service=service)
    return (await health_pb2_grpc.HealthStub(channel).Check(request)).status


async def test_calls_before_the_server_opens_are_told_to_come_back() -> None:
    async with endpoint_of(opened=False) as endpoint:
        operators = deployment_service_pb2_grpc.DeploymentServiceStub(endpoint.channel)
        for call in (
            endpoint.stub.Pack(pack_request()),
            operators.Pause(deployment_service_pb2.PauseRequest(deployment="d", reason="r")),
            operators.Resume(deployment_service_pb2.ResumeRequest(deployment="d")),
        ):
            error = await failure(call, "UNAVAILABLE")
            assert error.details() == "the server is warming up"
            assert retry_seconds(error) == 1


async def test_health_of_an_unknown_service_is_not_found_and_reported_so(
    endpoint: Endpoint,
) -> None:
    await failure(health(endpoint.channel, "nobody"), "NOT_FOUND")
    await endpoint.observer.until("call_ended", "grpc.health.v1.Health/Check", "NOT_FOUND")


async def test_health_answers_while_the_solver_works_and_calls_wait(endpoint: Endpoint) -> None:
    async with endpoint.busy() as release:
        waiting = endpoint.stub.Place(place_request())
        await endpoint.observer.until("queue_depth", 1)
        assert await health(endpoint.channel) == SERVING
        assert not waiting.done()
        release.set()
        await waiting


async def test_drain_refuses_new_calls_and_waits_for_those_that_run(endpoint: Endpoint) -> None:
    async with endpoint.busy() as release:
        running = endpoint.stub.Place(place_request())
        await endpoint.observer.until("queue_depth", 1)
        draining = asyncio.create_task(endpoint.server.drain())
        await asyncio.sleep(0)
        error = await failure(endpoint.stub.Pack(pack_request()), "UNAVAILABLE")
        assert error.details() == "the server is shutting down"
        assert retry_seconds(error) > 0
        assert await health(endpoint.channel) == NOT_SERVING
        assert not draining.done()
        release.set()
        await draining
    assert (await running).placement.digest


async def test_a_health_watch_sees_the_drain_and_does_not_hold_it_up(
    endpoint: Endpoint,
) -> None:
    watch = health_pb2_grpc.HealthStub(endpoint.channel).Watch(health_pb2.HealthCheckRequest())
    assert (await watch.read()).status == SERVING
    await endpoint.server.drain()
    assert (await watch.read()).status == NOT_SERVING


async def test_stopping_at_once_cuts_running_calls_off(endpoint: Endpoint) -> None:
    async with endpoint.busy():
        running = endpoint.stub.Place(place_request())
        await endpoint.observer.until("queue_depth", 1)
        await endpoint.server.stop(at_once=True)
        assert await running.code() is not grpc.StatusCode.OK


async def services(channel: grpc.aio.Channel) -> set[str]:
    call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo()
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    await call.done_writing()
    answer = await call.read()
    return {service.name for service in answer.list_services_response.service}


async def test_reflection_lists_the_services(endpoint: Endpoint) -> None:
    assert {SOLVER, "grpc.health.v1.Health"} <= await services(endpoint.channel)


async def test_reflection_can_be_off() -> None:
    async with endpoint_of(reflection="false") as endpoint:
        await failure(services(endpoint.channel), "UNIMPLEMENTED")


async def test_a_unix_socket_can_be_listened_on(tmp_path: Path) -> None:
    async with endpoint_of(listen=f"unix:{tmp_path}/trimtab.sock") as endpoint:
        assert endpoint.address == f"unix:{tmp_path}/trimtab.sock"
        assert (await endpoint.stub.Pack(pack_request())).HasField("pack_index")


async def test_an_address_in_use_is_an_error_that_names_it(endpoint: Endpoint) -> None:
    with pytest.raises(InvalidArgumentError, match=f"listen: .*{endpoint.address}"):
        async with endpoint_of(listen=endpoint.address):
            pass


def secure_channel(address: str, *own: bytes) -> grpc.aio.Channel:
    """To a server with TLS, by a client that may have a key and a certificate of its own."""
    credentials = grpc.ssl_channel_credentials((PKI / "ca.pem").read_bytes(), *own)
    name = [("grpc.ssl_target_name_override", "trimtab.test")]
    return grpc.aio.secure_channel(address, credentials, name)


async def test_mutual_tls_takes_only_clients_with_a_certificate() -> None:
    own = [(PKI / file).read_bytes() for file in ("client.key", "client.pem")]
    async with (
        endpoint_of(**TLS, tls_client_ca=str(PKI / "ca.pem")) as endpoint,
        secure_channel(endpoint.address, *own) as known,
        secure_channel(endpoint.address) as unknown,
    ):
        assert await health(known) == SERVING
        await failure(health(unknown), "UNAVAILABLE")


async def test_a_certificate_that_cannot_be_read_is_an_error_that_names_it() -> None:
    with pytest.raises(InvalidArgumentError, match=r"tls_key: cannot read /none\.key"):
        async with endpoint_of(tls_cert="/none.pem", tls_key="/none.key"):
            pass


@pytest.mark.parametrize(
    ("wrong", "content"),
    [("tls_cert", ""), ("tls_key", ""), ("tls_key", "client.key"), ("tls_client_ca", "")],
)
async def test_an_unusable_file_is_an_error_that_names_it(
    tmp_path: Path, wrong: str, content: str
) -> None:
    bad = tmp_path / "bad.pem"
    bad.write_text((PKI / content).read_text() if content else "garbage")
    tls = {**TLS, "tls_client_ca": str(PKI / "ca.pem"), wrong: str(bad)}
    with pytest.raises(InvalidArgumentError, match=f"^{wrong}: .*{bad}"):
        async with endpoint_of(**tls):
            pass
