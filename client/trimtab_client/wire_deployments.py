"""Deployments and their placements as messages and back. Errors are those of `wire_values`."""

from __future__ import annotations

from trimtab.v1alpha1 import deployment_service_pb2 as pb
from trimtab_client.checks import text
from trimtab_client.deployments import (
    BalanceStatus,
    Deployment,
    DeploymentSpec,
    DeploymentStatus,
    Imbalance,
    ServedPlacement,
    WorkerStatus,
)
from trimtab_client.exceptions import ProtocolError
from trimtab_client.results import TriggerResult
from trimtab_client.wire_policies import decision_value, judgement_value, policy_value
from trimtab_client.wire_values import (
    checked_placement,
    optional_field,
    placement_by_digest,
    step_value,
    topology_message,
    topology_value,
    uint32,
    version_value,
)
from trimtab_protocol.version import Version


def deployment_value(message: pb.Deployment) -> Deployment:
    """The deployment in a message."""
    return Deployment(
        _spec_value(message.spec), policy_value(message.policy), _status_value(message.status)
    )


def deployment_values(response: pb.ListDeploymentsResponse) -> list[Deployment]:
    """The answer of `deployments`."""
    return [deployment_value(message) for message in response.deployments]


def trigger_result(
    response: pb.TriggerResponse | pb.PinResponse | pb.RollBackResponse,
) -> TriggerResult:
    """The answer of `trigger`, `pin` and `roll_back`."""
    in_force = Version(response.in_force.epoch, response.in_force.generation)
    return TriggerResult(in_force, placement_by_digest(response.target))


def served_placement(
    response: pb.GetPlacementResponse | pb.WatchPlacementResponse,
) -> ServedPlacement:
    """The answer of `get_placement`, and each answer of `watch_placement`."""
    version = version_value(response, "version")
    if version is None:
        raise ProtocolError("the server sent a placement without its version")
    topology = topology_value(response.topology)
    experts, slots = response.num_experts, topology.num_replicas
    shape = list(response.placement.phy2log.shape)
    # Checked before these numbers are used: each expert costs memory.
    if shape[1:] != [slots] or experts > slots:
        raise ProtocolError(
            f"the server sent a placement of shape {shape} for {experts} experts in {slots} slots"
        )
    placement = checked_placement(response.placement, experts, topology.num_gpus)
    return ServedPlacement(version, placement, topology)


def spec_message(spec: DeploymentSpec) -> pb.DeploymentSpec:
    """A spec as a message."""
    return pb.DeploymentSpec(
        name=text(spec.name, "spec.name"),
        model=text(spec.model, "spec.model"),
        first_layer=uint32(spec.first_layer, "spec.first_layer"),
        num_layers=uint32(spec.num_layers, "spec.num_layers"),
        num_experts=uint32(spec.num_experts, "spec.num_experts"),
        topology=topology_message(spec.topology, "spec.topology"),
    )


def _spec_value(message: pb.DeploymentSpec) -> DeploymentSpec:
    return DeploymentSpec(
        name=message.name,
        num_layers=message.num_layers,
        num_experts=message.num_experts,
        topology=topology_value(message.topology),
        model=message.model,
        first_layer=message.first_layer,
    )


def _status_value(message: pb.DeploymentStatus) -> DeploymentStatus:
    last = decision_value(message.last_decision) if message.HasField("last_decision") else None
    return DeploymentStatus(
        in_force=version_value(message, "in_force"),
        digest=message.digest,
        in_force_seconds=optional_field(message, "in_force_seconds"),
        phase=message.phase,
        switching_to=version_value(message, "switching_to"),
        not_ready=message.not_ready or None,
        paused_reason=message.paused_reason or None,
        pinned_digest=message.pinned_digest or None,
        workers_connected=message.workers_connected,
        workers_absent=message.workers_absent,
        step=step_value(message.step),
        estimate_age_seconds=optional_field(message, "estimate_age_seconds"),
        balance=_balance_value(message.balance),
        last_decision=last,
        decisions=dict(message.decisions),
        past=tuple(Version(past.epoch, past.generation) for past in message.past),
        last_judged=judgement_value(message, "last_judged"),
        workers=tuple(_worker_value(worker) for worker in message.workers),
    )


def _worker_value(message: pb.WorkerStatus) -> WorkerStatus:
    return WorkerStatus(
        worker=message.worker,
        gpus=tuple(message.gpus),
        connected=message.connected,
        incarnation=message.incarnation,
        last_step=step_value(message.last_step),
        report_age_seconds=optional_field(message, "report_age_seconds"),
    )


def _balance_value(message: pb.BalanceStatus) -> BalanceStatus:
    return BalanceStatus(
        predicted=_imbalance(message, "predicted"),
        predicted_smoothed=_imbalance(message, "predicted_smoothed"),
        measured=_imbalance(message, "measured"),
        measured_smoothed=_imbalance(message, "measured_smoothed"),
        shadow=_imbalance(message, "shadow"),
        shadow_smoothed=_imbalance(message, "shadow_smoothed"),
        shadow_moves=message.shadow_moves,
    )


def _imbalance(message: pb.BalanceStatus, field: str) -> Imbalance | None:
    value = optional_field(message, field)
    if value is None:
        return None
    return Imbalance(value.worst, value.median, value.mean, value.layers)
