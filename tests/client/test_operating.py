"""The calls of operators: both clients against a scripted server. What goes out, what comes in."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from operator import methodcaller
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from tests.client.operated import (
    DECISION,
    DECISION_MESSAGE,
    DEPLOYMENT,
    DEPLOYMENT_MESSAGE,
    OTHER,
    PLACEMENT,
    POLICY,
    POLICY_MESSAGE,
    SPEC,
    SPEC_MESSAGE,
    placement_message,
    served_message,
)
from tests.client.service import Failure, RunningService, tensor_of
from trimtab.v1 import topology_pb2
from trimtab.v1alpha1 import deployment_service_pb2 as pb
from trimtab_client import (
    AlreadyExistsError,
    DeploymentSpec,
    FailedPreconditionError,
    InvalidArgumentError,
    Mode,
    NotFoundError,
    Policy,
    ProtocolError,
    Reason,
    ServedPlacement,
    ServerStatus,
    Topology,
    TriggerResult,
    TrimtabError,
    Version,
)

V27 = Version(2, 7)
V27_MESSAGE = {"epoch": 2, "generation": 7}
PINNED = pb.PinResponse(in_force=V27_MESSAGE, target=placement_message(OTHER))
PIN = TriggerResult(V27, OTHER)


def served(**changes: Any) -> pb.GetPlacementResponse:
    """What GetPlacement answers: on the wire, what a watch says."""
    message = served_message(V27, **changes)
    return pb.GetPlacementResponse.FromString(message.SerializeToString())


SERVED = ServedPlacement(V27, PLACEMENT, Topology(6, 2, 1, 1))
SERVER: dict[str, Any] = {
    "version": "1.2",
    "term": 3,
    "uptime_seconds": 4.5,
    "store_failure": "the disk is full",
    "deployments": 6,
    "sessions": 7,
}
CALLS = {
    "the server's status": (
        ("server_status",),
        pb.GetServerStatusRequest(),
        pb.GetServerStatusResponse(**SERVER),
        ServerStatus(**SERVER),
    ),
    "the status of one whose store works": (
        ("server_status",),
        pb.GetServerStatusRequest(),
        pb.GetServerStatusResponse(**{**SERVER, "store_failure": ""}),
        ServerStatus(**{**SERVER, "store_failure": None}),
    ),
    "create": (
        ("create_deployment", SPEC, POLICY),
        pb.CreateDeploymentRequest(spec=SPEC_MESSAGE, policy=POLICY_MESSAGE),
        pb.CreateDeploymentResponse(deployment=DEPLOYMENT_MESSAGE),
        DEPLOYMENT,
    ),
    "get": (
        ("get_deployment", "d"),
        pb.GetDeploymentRequest(deployment="d"),
        pb.GetDeploymentResponse(deployment=DEPLOYMENT_MESSAGE),
        DEPLOYMENT,
    ),
    "list": (
        ("deployments",),
        pb.ListDeploymentsRequest(),
        pb.ListDeploymentsResponse(deployments=[DEPLOYMENT_MESSAGE] * 2),
        [DEPLOYMENT, DEPLOYMENT],
    ),
    "update": (
        ("update_policy", "d", Policy(max_moves=0)),
        pb.UpdatePolicyRequest(deployment="d", policy=pb.Policy(max_moves=0)),
        pb.UpdatePolicyResponse(policy=POLICY_MESSAGE),
        POLICY,
    ),
    "delete": (
        ("delete_deployment", "d"),
        pb.DeleteDeploymentRequest(deployment="d"),
        pb.DeleteDeploymentResponse(),
        None,
    ),
    "decisions": (
        ("decisions", "d", 3),
        pb.ListDecisionsRequest(deployment="d", limit=3),
        pb.ListDecisionsResponse(decisions=[DECISION_MESSAGE]),
        [DECISION],
    ),
    "pause": (
        ("pause", "d", "maintenance"),
        pb.PauseRequest(deployment="d", reason="maintenance"),
        pb.PauseResponse(previous_reason="before"),
        "before",
    ),
    "resume": (
        ("resume", "d"),
        pb.ResumeRequest(deployment="d"),
        pb.ResumeResponse(previous_reason="before"),
        "before",
    ),
    "unpin": (
        ("unpin", "d"),
        pb.UnpinRequest(deployment="d"),
        pb.UnpinResponse(previous_digest=OTHER.digest),
        OTHER.digest,
    ),
    "pin": (("pin", "d"), pb.PinRequest(deployment="d"), PINNED, PIN),
    "pin a placement": (
        ("pin", "d", PLACEMENT),
        pb.PinRequest(deployment="d", placement=placement_message(PLACEMENT)),
        PINNED,
        PIN,
    ),
    "pin an array": (
        ("pin", "d", PLACEMENT.phy2log.tolist()),
        pb.PinRequest(
            deployment="d", placement={"phy2log": tensor_of(PLACEMENT.phy2log.astype("<i8"), 4)}
        ),
        PINNED,
        PIN,
    ),
    **{
        f"roll back to {version!r}": (
            ("roll_back", "d", version),
            pb.RollBackRequest(deployment="d", version=message),
            PINNED,
            PIN,
        )
        for version, message in ((V27, V27_MESSAGE), ("2.7", V27_MESSAGE), (7, {"generation": 7}))
    },
    "get the placement": (
        ("get_placement", "d"),
        pb.GetPlacementRequest(deployment="d"),
        served(),
        SERVED,
    ),
    "get an old one": (
        ("get_placement", "d", "2.7"),
        pb.GetPlacementRequest(deployment="d", version=V27_MESSAGE),
        served(),
        SERVED,
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_sends_its_arguments_returns_the_answer_and_is_retried(
    service: RunningService, client: Any, name: str
) -> None:
    """Even if the server may have begun: all of them are idempotent."""
    call, request, service.deployments.answer, answer = CALLS[name]
    service.deployments.failures.extend([Failure(grpc.StatusCode.UNAVAILABLE)] * 2)

    assert methodcaller(*call)(client) == answer
    assert service.deployments.requests == [request] * 3


def test_omitted_arguments_are_not_sent(service: RunningService, client: Any) -> None:
    service.deployments.answer = pb.CreateDeploymentResponse(deployment=DEPLOYMENT_MESSAGE)
    spec = DeploymentSpec("d", np.int64(3), 4, Topology(6, 2))
    client.create_deployment(spec)
    client.create_deployment(spec, Policy())

    bare, empty = service.deployments.requests
    assert {field.name for field, _ in bare.spec.ListFields()} == {
        *("name", "num_layers", "num_experts", "topology", "switched_by")
    }
    assert not bare.HasField("policy")
    assert empty.policy.ListFields() == []


@pytest.mark.parametrize("mode", [Mode.OFF, Mode.SHADOW, Mode.ACTIVE, "off", "shadow", "active"])
def test_each_mode_has_its_number(service: RunningService, client: Any, mode: Any) -> None:
    service.deployments.answer = pb.UpdatePolicyResponse(policy=POLICY_MESSAGE)
    client.update_policy("d", Policy(mode=mode))

    [request] = service.deployments.requests
    assert pb.Mode.Name(request.policy.mode) == f"MODE_{Mode(mode).name}"


def test_every_number_of_the_contract_is_known(service: RunningService, client: Any) -> None:
    reasons, modes = pb.Reason.keys()[1:], pb.Mode.keys()[1:]
    service.deployments.answer = pb.ListDecisionsResponse(
        decisions=[
            *(pb.Decision(reason=reason) for reason in reasons),
            *(pb.Decision(mode=mode) for mode in modes),
        ]
    )
    found = client.decisions("d")

    assert [f"REASON_{each.reason.name}" for each in found[: len(reasons)]] == reasons
    assert [f"MODE_{each.mode.name}" for each in found[len(reasons) :]] == modes
    assert all(each.reason.value == each.reason.name.lower() for each in found)


def test_unknown_enum_values_of_a_newer_server_become_unknown(
    service: RunningService, client: Any
) -> None:
    message = pb.Deployment(
        policy=pb.Policy(mode=99),
        status=pb.DeploymentStatus(last_decision=pb.Decision(reason=99, mode=99)),
    )
    service.deployments.answer = pb.GetDeploymentResponse(deployment=message)
    found = client.get_deployment("d")

    assert found.policy == Policy(mode=Mode.UNKNOWN)
    assert found.status.last_decision.reason is Reason.UNKNOWN
    assert found.status.last_decision.mode is Mode.UNKNOWN


def test_absent_fields_are_none(service: RunningService, client: Any) -> None:
    message = pb.Deployment(status=pb.DeploymentStatus(phase="idle", step=-1))
    service.deployments.answer = pb.GetDeploymentResponse(deployment=message)
    found = client.get_deployment("d")

    assert found.policy == Policy()
    absent = {name for name, value in vars(found.status).items() if value is None}
    assert absent == {
        *("in_force", "in_force_seconds", "switching_to", "not_ready", "paused_reason"),
        *("pinned_digest", "step", "estimate_age_seconds", "last_decision"),
        *("last_judged", "last_refusal"),
    }
    balance = dataclasses.asdict(found.status.balance)
    assert {name for name, value in balance.items() if value is not None} == {"shadow_moves"}
    assert (found.status.past, found.status.workers, found.status.decisions) == ((), (), {})

    service.deployments.answer = pb.ListDecisionsResponse(
        decisions=[pb.Decision(detail="why", step=-1)]
    )
    [decision] = client.decisions("d")
    assert decision.step is None
    assert (decision.imbalance_before, decision.imbalance_after) == (None, None)
    assert (decision.certainty, decision.judged) == (None, None)
    assert decision.detail == "why"
    service.deployments.answer = pb.UnpinResponse()
    assert client.unpin("d") is None


def spec(**changes: Any) -> DeploymentSpec:
    return dataclasses.replace(SPEC, **changes)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (("create_deployment", spec(name=7)), "spec.name: 7 is not a string"),
        (("create_deployment", spec(model=None)), "spec.model: None is not a string"),
        (("create_deployment", spec(num_layers=-1)), "spec.num_layers: -1 is not in"),
        (("create_deployment", spec(num_experts="4")), "spec.num_experts: '4' is not an integer"),
        (("create_deployment", spec(first_layer=2**32)), "spec.first_layer: 4294967296 is not"),
        (
            ("create_deployment", spec(topology=Topology(6, 2.0))),  # type: ignore[arg-type]
            "spec.topology.num_gpus: 2.0 is not an integer",
        ),
        (
            ("create_deployment", SPEC, Policy(least_gain=math.nan)),
            "policy.least_gain: nan is not a real number",
        ),
        (("update_policy", "d", Policy(every_steps=-1)), "policy.every_steps: -1 is not in"),
        (("update_policy", "d", Policy(max_moves=True)), "policy.max_moves: True is not an"),
        (
            ("update_policy", "d", Policy(mode=Mode.UNKNOWN)),
            "policy.mode: 'unknown' is not one of",
        ),
        (("get_deployment", None), "deployment: None is not a string"),
        (("delete_deployment", b"d"), "deployment: b'd' is not a string"),
        (("decisions", "d", -1), "limit: -1 is not in"),
        (("pin", "d", [0, 1]), "placement.phy2log: shape"),
        (("unpin", 7), "deployment: 7 is not a string"),
        (("roll_back", "d", "newest"), "version: 'newest' is not a version"),
        (("get_placement", "d", -1), "version: -1 is not in"),
        (("trigger", 7), "deployment: 7 is not a string of Unicode"),
        (("pause", 7, "maintenance"), "deployment: 7 is not a string"),
        (("pause", "d", None), "reason: None is not a string"),
        (("pause", "d", "\udcff"), r"reason: '\udcff' is not a string of Unicode"),
        (("resume", b"d"), "deployment: b'd' is not a string"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_arguments_that_cannot_be_sent_are_refused_locally(
    service: RunningService, client: Any, call: tuple[Any, ...], message: str
) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        methodcaller(*call)(client)
    assert str(caught.value).startswith(message)
    assert [violation.field for violation in caught.value.field_violations] == [
        message.partition(":")[0]
    ]
    assert service.deployments.requests == []


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match=r"policy.mode: 'on' is not one of \['off'"):
        Policy(mode="on")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.NOT_FOUND, NotFoundError),
        (grpc.StatusCode.ALREADY_EXISTS, AlreadyExistsError),
        (grpc.StatusCode.FAILED_PRECONDITION, FailedPreconditionError),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
@pytest.mark.parametrize("name", ["create", "get", "delete", "pin", "roll back to 7"])
def test_a_refusal_is_final_and_in_the_servers_words(
    service: RunningService, client: Any, name: str, code: Any, kind: type[TrimtabError]
) -> None:
    service.deployments.failures.append(Failure(code, "as it is"))

    with pytest.raises(kind) as caught:
        methodcaller(*CALLS[name][0])(client)
    assert (str(caught.value), caught.value.code) == ("as it is", code)
    assert len(service.deployments.requests) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"placement": placement_message(PLACEMENT, digest=bytes(32))}, "its digest is 0000"),
        ({"placement": placement_message(PLACEMENT, digest=b"")}, "its digest is empty"),
        ({"placement": None}, "shape"),
        ({"version": None}, "without its version"),
        ({"topology": None}, "in 0 slots"),
        (
            {"topology": topology_pb2.Topology(num_replicas=6, num_gpus=4)},
            "4 does not divide the number of slots",
        ),
        ({"topology": topology_pb2.Topology(num_replicas=6)}, "0 does not divide"),
        ({"topology": topology_pb2.Topology(num_replicas=8, num_gpus=2)}, "in 8 slots"),
        ({"num_experts": 2**32 - 1}, "for 4294967295 experts"),
        ({"num_experts": 3}, "is not an expert in"),
    ],
    ids=[
        *("another digest", "no digest", "no placement", "no version", "no topology"),
        *("other GPUs", "no GPUs", "other slots", "too many experts", "too few experts"),
    ],
)
def test_an_invalid_placement_is_a_protocol_error(
    service: RunningService, client: Any, changes: dict[str, Any], message: str
) -> None:
    service.deployments.answer = served(**changes)

    with pytest.raises(ProtocolError, match=message):
        client.get_placement("d")


def test_a_target_is_checked_against_its_digest(service: RunningService, client: Any) -> None:
    target = placement_message(OTHER, digest=PLACEMENT.digest)
    service.deployments.answer = pb.PinResponse(in_force=V27_MESSAGE, target=target)
    for call in (("pin", "d"), ("roll_back", "d", 7)):
        with pytest.raises(ProtocolError, match="Do not use this placement"):
            methodcaller(*call)(client)


@pytest.mark.parametrize(
    "time", [Timestamp(seconds=2**62), Timestamp(nanos=-1)], ids=["too late", "none"]
)
def test_an_impossible_time_is_a_protocol_error(
    service: RunningService, client: Any, time: Timestamp
) -> None:
    service.deployments.answer = pb.ListDecisionsResponse(decisions=[pb.Decision(time=time)])

    with pytest.raises(ProtocolError, match="an invalid time"):
        client.decisions("d")


@pytest.mark.parametrize("name", CALLS)
def test_calls_take_a_timeout(connect: Callable[..., Any], name: str) -> None:
    client = connect("unix:/nowhere")
    with pytest.raises(InvalidArgumentError, match="timeout: 0 is not above 0"):
        methodcaller(*CALLS[name][0], timeout=0)(client)
