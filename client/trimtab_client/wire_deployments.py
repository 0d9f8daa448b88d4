"""Deployments and their placements as messages and back. Errors are those of `wire_values`."""

from __future__ import annotations

from dataclasses import fields

from trimtab.v1alpha1 import deployment_service_pb2 as pb
from trimtab_client import deployments, wire_values
from trimtab_client.checks import text
from trimtab_client.deployments import BalanceStatus, Deployment, DeploymentSpec, ServedPlacement
from trimtab_client.exceptions import ProtocolError
from trimtab_client.results import TriggerResult
from trimtab_client.wire_policies import decision_value, judgement_value, policy_value
from trimtab_client.wire_values import step_value, topology_value, uint32, version_value
from trimtab_protocol.wire.values import optional, value_of


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
    return TriggerResult(
        version_value(response.in_force), wire_values.placement_by_digest(response.target)
    )


def served_placement(
    response: pb.GetPlacementResponse | pb.WatchPlacementResponse,
) -> ServedPlacement:
    """The answer of `get_placement`, and each answer of `watch_placement`."""
    if not response.HasField("version"):
        raise ProtocolError("the server sent a placement without its version")
    topology = topology_value(response.topology)
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
    )


def _spec_value(message: pb.DeploymentSpec) -> DeploymentSpec:
    return value_of(DeploymentSpec, message, topology=topology_value(message.topology))


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
        past=tuple(map(version_value, message.past)),
        last_judged=optional(message, "last_judged", judgement_value),
        workers=tuple(map(_worker_value, message.workers)),
    )


def _worker_value(message: pb.WorkerStatus) -> deployments.WorkerStatus:
    gpus, last_step = tuple(message.gpus), step_value(message.last_step)
    return value_of(deployments.WorkerStatus, message, gpus=gpus, last_step=last_step)


def _balance_value(message: pb.BalanceStatus) -> BalanceStatus:
    names = [each.name for each in fields(BalanceStatus) if each.name != "shadow_moves"]
    imbalances = {name: optional(message, name, _imbalance_value) for name in names}
    return BalanceStatus(shadow_moves=message.shadow_moves, **imbalances)


def _imbalance_value(message: pb.Imbalance) -> deployments.Imbalance:
    return value_of(deployments.Imbalance, message)
