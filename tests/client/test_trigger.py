"""Switching and pausing: both clients against the real server, and against a scripted one."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import grpc
import numpy as np
import pytest

from tests.client.deployed import FIRST, SECOND, Worker, accepted
from tests.client.operated import placement_message
from tests.client.service import Failure, RunningService, array_of, tensor_of
from tests.client.worker.server import WAIT
from tests.servers import ServerProcess
from trimtab.v1alpha1 import deployment_service_pb2 as pb
from trimtab_client import (
    FailedPreconditionError,
    InvalidArgumentError,
    MoveBudget,
    NotFoundError,
    Placement,
    ProtocolError,
    ResourceExhaustedError,
    TrimtabError,
    UnavailableError,
    Version,
)


@pytest.fixture
def client(often: ServerProcess, connect: Callable[..., Any]) -> Any:
    return connect(often.address)


def test_a_deployment_goes_to_the_placement_that_is_given(client: Any, worker: Worker) -> None:
    result = client.trigger(worker.deployment, placement=SECOND)

    assert (result.in_force, result.target) == (Version(1, 0), SECOND)
    assert (result.target.num_experts, result.target.num_gpus) == (4, 2)
    worker.flip()
    assert worker.session.placement == SECOND

    again = accepted(client, worker.deployment, placement=SECOND.phy2log)
    assert (again.in_force, again.target) == (Version(1, 1), SECOND)


def test_trigger_without_a_placement_plans_from_the_counts(client: Any, worker: Worker) -> None:
    # Experts 0 and 1 have two slots each, and 2 is the one that needs them.
    worker.session.record([[0, 10, 1000, 10]] * 3, 0, 0)
    budget = MoveBudget(max_moves=1)
    result = accepted(client, worker.deployment, budget=budget)

    changed = result.target.phy2log != FIRST.phy2log
    assert result.target.phy2log[changed].tolist() == [2]
    worker.flip()
    assert worker.session.placement == result.target

    full = accepted(client, worker.deployment)
    assert (full.target.logcnt[:, 2] == 2).all()


def test_an_open_switch_forbids_another(client: Any, worker: Worker) -> None:
    client.trigger(worker.deployment, placement=SECOND)

    with pytest.raises(FailedPreconditionError, match=r"the switch to 1\.1 is") as caught:
        client.trigger(worker.deployment, placement=FIRST)
    assert caught.value.code is grpc.StatusCode.FAILED_PRECONDITION
    assert str(caught.value) == caught.value.details


def test_the_server_says_why_it_cannot_trigger(client: Any, worker: Worker) -> None:
    with pytest.raises(FailedPreconditionError, match="no worker has reported any load yet"):
        client.trigger(worker.deployment)
    with pytest.raises(NotFoundError, match="there is no deployment 'nobody'"):
        client.trigger("nobody")
    with pytest.raises(InvalidArgumentError) as caught:
        client.trigger(worker.deployment, placement=SECOND, budget=MoveBudget())
    assert [violation.field for violation in caught.value.field_violations] == ["budget"]


def test_a_pause_aborts_the_offer_and_forbids_offers_until_resume(
    often: ServerProcess, client: Any, request: pytest.FixtureRequest
) -> None:
    transfer = Future[None]()
    worker = Worker(often, request.node.name, on_offer=lambda _: transfer)
    client.trigger(worker.deployment, placement=SECOND)

    assert client.pause(worker.deployment, "maintenance") is None
    transfer.set_result(None)
    assert worker.aborted.wait(WAIT)
    with pytest.raises(FailedPreconditionError, match="the deployment is paused: maintenance"):
        client.trigger(worker.deployment, placement=SECOND)

    assert client.resume(worker.deployment) == "maintenance"
    assert client.resume(worker.deployment) is None
    assert accepted(client, worker.deployment, placement=SECOND).target == SECOND
    worker.flip()
    worker.session.close(timeout=0.1)


def test_the_server_says_why_it_cannot_pause(client: Any, worker: Worker) -> None:
    with pytest.raises(NotFoundError, match="there is no deployment 'nobody'"):
        client.pause("nobody", "maintenance")
    with pytest.raises(NotFoundError, match="there is no deployment 'nobody'"):
        client.resume("nobody")
    for reason in ("", "x" * 1001):
        with pytest.raises(InvalidArgumentError) as caught:
            client.pause(worker.deployment, reason)
        assert [violation.field for violation in caught.value.field_violations] == ["reason"]
    assert client.resume(worker.deployment) is None


@pytest.fixture
def scripted(service: RunningService, connect: Callable[..., Any]) -> Any:
    """A client of the scripted server."""
    return connect(service.target)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"placement": [0, 1]}, "placement.phy2log: shape"),
        ({"budget": MoveBudget(max_moves=-1)}, "budget.max_moves: -1"),
    ],
    ids=["placement", "budget"],
)
def test_arguments_that_cannot_be_sent_are_refused_locally(
    service: RunningService, scripted: Any, arguments: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=field):
        scripted.trigger("d", **arguments)
    assert service.deployments.requests == []


def answer(placement: Placement, **changes: Any) -> pb.TriggerResponse:
    target = placement_message(placement, **changes)
    return pb.TriggerResponse(in_force={"epoch": 3, "generation": 4}, target=target)


@pytest.mark.parametrize("gpus", [1, 2, 3, 4, 6, 12])
def test_the_digest_says_how_many_gpus_there_are(
    service: RunningService, scripted: Any, gpus: int
) -> None:
    placement = Placement.untouched(2, 5, 12, gpus)
    service.deployments.answer = answer(placement)

    result = scripted.trigger("d", placement=placement)
    assert (result.in_force, result.target) == (Version(3, 4), placement)
    assert result.target.num_gpus == gpus
    [request] = service.deployments.requests
    assert array_of(request.placement.phy2log).tolist() == placement.phy2log.tolist()
    assert request.placement.digest == placement.digest
    assert not request.HasField("budget")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"digest": bytes(32)}, "its digest is 0000"),
        ({"digest": b""}, "its digest is empty"),
        ({"phy2log": None}, "0 is not a known type"),
        ({"phy2log": tensor_of(np.zeros(6))}, "rank 1, not 2"),
        ({"phy2log": tensor_of(np.full((1, 6), 2**31 - 1))}, "is not an expert in"),
        ({"phy2log": tensor_of(np.array([[0, 1, 3, 0, 1, 3]]))}, "expert 2 has no slot"),
    ],
    ids=["another", "none", "nothing", "a row", "an expert too high", "one without a slot"],
)
def test_an_invalid_target_is_a_protocol_error(
    service: RunningService, scripted: Any, changes: dict[str, Any], message: str
) -> None:
    service.deployments.answer = answer(SECOND, **changes)

    with pytest.raises(ProtocolError, match=message):
        scripted.trigger("d")


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("UNAVAILABLE", UnavailableError),
        ("RESOURCE_EXHAUSTED", ResourceExhaustedError),
        ("FAILED_PRECONDITION", FailedPreconditionError),
    ],
)
def test_trigger_is_retried_only_if_the_server_turned_it_away(
    service: RunningService, scripted: Any, code: str, kind: type[TrimtabError]
) -> None:
    """Else it may have begun."""
    service.deployments.answer = answer(SECOND)
    service.deployments.failures.append(Failure(grpc.StatusCode[code]))
    with pytest.raises(kind, match="scripted"):
        scripted.trigger("d")
    assert len(service.deployments.requests) == 1

    if kind is not FailedPreconditionError:
        turned_away = Failure(grpc.StatusCode[code], retry_after=0.001)
        service.deployments.failures.extend([turned_away] * 2)
        assert scripted.trigger("d").target == SECOND
        assert len(service.deployments.requests) == 4
