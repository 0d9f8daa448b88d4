"""Pausing and resuming a deployment: both clients against a real server, and a scripted one."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.client.deployed import SECOND, Worker, accepted
from tests.client.harness import SyncHarness
from tests.client.service import Failure, RunningService
from tests.client.worker.server import WAIT
from tests.servers import ServerProcess, server_process
from trimtab.v1alpha1 import deployment_service_pb2
from trimtab_client import (
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    UnavailableError,
)


def test_a_pause_aborts_the_offer_and_forbids_offers_until_resume(
    often: ServerProcess, connect: Callable[..., Any], request: pytest.FixtureRequest
) -> None:
    client, transfer = connect(often.address), Future[None]()
    worker = Worker(often, request.node.name, on_offer=lambda _: transfer)
    client.call("trigger", worker.deployment, placement=SECOND)

    assert client.call("pause", worker.deployment, "maintenance") is None
    transfer.set_result(None)
    assert worker.aborted.wait(WAIT)
    with pytest.raises(FailedPreconditionError, match="the deployment is paused: maintenance"):
        client.call("trigger", worker.deployment, placement=SECOND)

    assert client.call("resume", worker.deployment) == "maintenance"
    assert client.call("resume", worker.deployment) is None
    assert accepted(client, worker.deployment, placement=SECOND).target == SECOND
    worker.flip()
    worker.session.close(timeout=0.1)


def test_the_server_says_why_it_cannot_pause(client: Any, worker: Worker) -> None:
    with pytest.raises(NotFoundError, match="there is no deployment 'nobody'"):
        client.call("pause", "nobody", "maintenance")
    with pytest.raises(NotFoundError, match="there is no deployment 'nobody'"):
        client.call("resume", "nobody")
    for reason in ("", "x" * 1001):
        with pytest.raises(InvalidArgumentError) as caught:
            client.call("pause", worker.deployment, reason)
        assert [violation.field for violation in caught.value.field_violations] == ["reason"]
    assert client.call("resume", worker.deployment) is None


@pytest.mark.slow
@pytest.mark.process
def test_pause_and_resume_survive_a_restart_of_the_server(tmp_path: Path) -> None:
    """Killed, and with other workers each time."""
    before = []
    for method, *reason in (("pause", "maintenance"), ("resume",), ("resume",)):
        with server_process("--store", str(tmp_path / "trimtab.db")) as server:
            worker, client = Worker(server, "d"), SyncHarness(server.address)
            before.append(client.call(method, "d", *reason))
            client.close()
            worker.session.close(timeout=0.1)
    assert before == [None, "maintenance", None]


@pytest.fixture
def client(often: ServerProcess, connect: Callable[..., Any]) -> Any:
    return connect(often.address)


CALLS = [("pause", "d", "maintenance"), ("resume", "d")]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (("pause", 7, "maintenance"), "deployment: 7 is not a string"),
        (("pause", "d", None), "reason: None is not a string"),
        (("pause", "d", "\udcff"), r"reason: '\\udcff' is not a string of Unicode"),
        (("resume", b"d"), "deployment: b'd' is not a string"),
    ],
    ids=["deployment", "no reason", "not Unicode", "bytes"],
)
def test_arguments_that_cannot_be_sent_are_refused_locally(
    service: RunningService, connect: Callable[..., Any], call: tuple[Any, ...], message: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        connect(service.target).call(*call)
    assert service.deployments.requests == []


@pytest.mark.parametrize("call", CALLS, ids=["pause", "resume"])
def test_idempotent_calls_are_retried_even_if_the_server_may_have_begun(
    service: RunningService, connect: Callable[..., Any], call: tuple[Any, ...]
) -> None:
    service.deployments.failures.extend([Failure(grpc.StatusCode.UNAVAILABLE)] * 2)
    service.deployments.answer = deployment_service_pb2.PauseResponse(previous_reason="before")

    assert connect(service.target).call(*call) == "before"
    first, *others = service.deployments.requests
    assert first.deployment == "d"
    assert others == [first, first]


@pytest.mark.parametrize("call", CALLS, ids=["pause", "resume"])
def test_calls_take_a_timeout(
    connect: Callable[..., Any], tmp_path: Path, call: tuple[Any, ...]
) -> None:
    client = connect(f"unix:{tmp_path / 'nobody'}")
    with pytest.raises(InvalidArgumentError, match="timeout: 0 is not above 0"):
        client.call(*call, timeout=0)
    with pytest.raises(UnavailableError):
        client.call(*call, timeout=10)
