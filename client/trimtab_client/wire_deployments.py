"""Policies, decisions, deployments and their placements as messages and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from datetime import UTC, datetime
from functools import partial

from google.protobuf.timestamp_pb2 import Timestamp

from trimtab.v1alpha1 import deployment_service_pb2 as pb
from trimtab_client import deployments, wire_values
from trimtab_client.checks import real, text
from trimtab_client.deployments import (
    BalanceStatus,
    Deployment,
    DeploymentSpec,
    PlacementCause,
    ServedPlacement,
)
from trimtab_client.exceptions import ProtocolError, invalid
from trimtab_client.operations import Operation
from trimtab_client.policies import Certainty, Decision, Judgement, Mode, Policy, Reason
from trimtab_client.results import TriggerResult
from trimtab_client.wire_values import Check, checked, step_value, uint32, version_value
from trimtab_protocol.messages import SwitchedBy
from trimtab_protocol.operations import OperationKind
from trimtab_protocol.wire.values import (
    decode_topology,
    members_of,
    numbers_of,
    optional,
    value_of,
)

_MODES = numbers_of(Mode, pb.Mode, "MODE")
_MODES_BACK = members_of(Mode, pb.Mode, "MODE")
_SWITCHED_BY = numbers_of(SwitchedBy, pb.SwitchedBy, "SWITCHED_BY")
_REASONS = members_of(Reason, pb.Reason, "REASON")
_OPERATIONS = members_of(OperationKind, pb.OperationKind, "OPERATION_KIND")
_CAUSES = members_of(PlacementCause, pb.PlacementCause, "PLACEMENT_CAUSE")
_SETTINGS: Mapping[str, Check] = {
    **dict.fromkeys(("half_life_steps", "window_steps", "least_gain", "replan_gap"), real),
    **dict.fromkeys(("moe_share", "node_bandwidth", "cross_node_bandwidth"), real),
    **dict.fromkeys(("every_steps", "cooldown_steps", "horizon_steps"), uint32),
    **dict.fromkeys(("max_moves_per_layer", "max_moves"), uint32),
}


def deployment_value(message: pb.Deployment) -> Deployment:
    """The deployment in a message."""
    return Deployment(
        _spec_value(message.spec), policy_value(message.policy), _status_value(message.status)
    )


def deployment_values(response: pb.ListDeploymentsResponse) -> list[Deployment]:
    """The answer of `deployments`."""
    return [deployment_value(message) for message in response.deployments]


def server_status(response: pb.GetServerStatusResponse) -> deployments.ServerStatus:
    """The answer of `server_status`."""
    failure = response.store_failure or None
    return value_of(deployments.ServerStatus, response, store_failure=failure)


def trigger_result(
    response: pb.TriggerResponse | pb.PinResponse | pb.RollBackResponse,
) -> TriggerResult:
    """The answer of `trigger`, `pin` and `roll_back`."""
    target = wire_values.placement_by_digest(response.target)
    return TriggerResult(version_value(response.in_force), target)


def served_placement(
    response: pb.GetPlacementResponse | pb.WatchPlacementResponse,
) -> ServedPlacement:
    """The answer of `get_placement`, and each answer of `watch_placement`."""
    if not response.HasField("version"):
        raise ProtocolError("the server sent a placement without its version")
    topology = decode_topology(response.topology)
    experts, slots = response.num_experts, topology.num_replicas
    shape = list(response.placement.phy2log.shape)
    # Checked before these numbers are used: each expert costs memory.
    if shape[1:] != [slots] or experts > slots:
        raise ProtocolError(
            f"the server sent a placement of shape {shape} for {experts} experts in {slots} slots"
        )
    placement = wire_values.checked_placement(response.placement, experts, topology.num_gpus)
    return ServedPlacement(version_value(response.version), placement, topology)


def spec_message(spec: DeploymentSpec) -> pb.DeploymentSpec:
    """A spec as a message."""
    return pb.DeploymentSpec(
        name=text(spec.name, "spec.name"),
        model=text(spec.model, "spec.model"),
        first_layer=uint32(spec.first_layer, "spec.first_layer"),
        num_layers=uint32(spec.num_layers, "spec.num_layers"),
        num_experts=uint32(spec.num_experts, "spec.num_experts"),
        topology=wire_values.topology_message(spec.topology, "spec.topology"),
        switched_by=_SWITCHED_BY[spec.switched_by],
    )


def _spec_value(message: pb.DeploymentSpec) -> DeploymentSpec:
    by_engine = message.switched_by == pb.SWITCHED_BY_ENGINE
    switched_by = SwitchedBy.ENGINE if by_engine else SwitchedBy.WORKERS
    topology = decode_topology(message.topology)
    return value_of(DeploymentSpec, message, topology=topology, switched_by=switched_by)


def _status_value(message: pb.DeploymentStatus) -> deployments.DeploymentStatus:
    return value_of(
        deployments.DeploymentStatus,
        message,
        in_force=optional(message, "in_force", version_value),
        switching_to=optional(message, "switching_to", version_value),
        not_ready=message.not_ready or None,
        paused_reason=message.paused_reason or None,
        pinned_digest=message.pinned_digest or None,
        step=step_value(message.step),
        balance=_balance_value(message.balance),
        last_decision=optional(message, "last_decision", decision_value),
        decisions=dict(message.decisions),
        points=_points(message),
        last_judged=optional(message, "last_judged", judgement_value),
        last_refusal=message.last_refusal or None,
        workers=tuple(map(_worker_value, message.workers)),
    )


def _points(message: pb.DeploymentStatus) -> tuple[deployments.RollbackPoint, ...]:
    # Older servers tell only the versions.
    told = message.points or (pb.RollbackPoint(version=version) for version in message.past)
    return tuple(
        value_of(
            deployments.RollbackPoint,
            point,
            version=version_value(point.version),
            cause=_CAUSES.get(point.cause, PlacementCause.UNKNOWN),
            since=optional(point, "since", _time),
            until=optional(point, "until", _time),
        )
        for point in told
    )


def _worker_value(message: pb.WorkerStatus) -> deployments.WorkerStatus:
    gpus, last_step = tuple(message.gpus), step_value(message.last_step)
    return value_of(deployments.WorkerStatus, message, gpus=gpus, last_step=last_step)


def _balance_value(message: pb.BalanceStatus) -> BalanceStatus:
    names = [each.name for each in fields(BalanceStatus) if each.name != "shadow_moves"]
    imbalance_of = partial(value_of, deployments.Imbalance)
    imbalances = {name: optional(message, name, imbalance_of) for name in names}
    return BalanceStatus(shadow_moves=message.shadow_moves, **imbalances)


def policy_message(policy: Policy) -> pb.Policy:
    """A policy as a message. Settings that are None are not set."""
    if policy.mode is Mode.UNKNOWN:
        names = [mode.value for mode in _MODES]
        raise invalid("policy.mode", f"{policy.mode.value!r} is not one of {names}")
    mode = pb.MODE_UNSPECIFIED if policy.mode is None else _MODES[policy.mode]
    return pb.Policy(mode=mode, **checked(policy, "policy", _SETTINGS))


def policy_value(message: pb.Policy) -> Policy:
    """The policy in a message."""
    mode = None if message.mode == pb.MODE_UNSPECIFIED else _mode(message.mode)
    return value_of(Policy, message, mode=mode)


def decision_value(message: pb.Decision) -> Decision:
    """The decision in a message."""
    return value_of(
        Decision,
        message,
        time=_time(message.time),
        step=step_value(message.step),
        reason=_REASONS.get(message.reason, Reason.UNKNOWN),
        mode=_mode(message.mode),
        certainty=optional(message, "certainty", partial(value_of, Certainty)),
        judged=optional(message, "judged", judgement_value),
    )


def decision_values(response: pb.ListDecisionsResponse) -> list[Decision]:
    """The answer of `decisions`."""
    return [decision_value(message) for message in response.decisions]


def operation_values(response: pb.ListOperationsResponse) -> list[Operation]:
    """The answer of `operations`."""
    return [
        value_of(
            Operation,
            message,
            time=_time(message.time),
            kind=_OPERATIONS.get(message.kind, OperationKind.UNKNOWN),
        )
        for message in response.operations
    ]


def judgement_value(message: pb.Judgement) -> Judgement:
    """The judgement of a switch in a message."""
    return value_of(Judgement, message, step=step_value(message.step))


def _mode(number: int) -> Mode:
    return _MODES_BACK.get(number, Mode.UNKNOWN)


def _time(message: Timestamp) -> datetime:
    try:
        return message.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise ProtocolError(f"the server sent an invalid time: {error}") from error
