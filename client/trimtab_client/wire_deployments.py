"""Deployments, and the calls that create, show, change and delete them, as messages and back.

All of it is pure. Requests raise InvalidArgumentError where an argument cannot be sent.
"""

from __future__ import annotations

from trimtab.v1alpha1 import deployment_service_pb2 as pb
from trimtab_client.checks import text
from trimtab_client.deployments import (
    BalanceStatus,
    Deployment,
    DeploymentSpec,
    DeploymentStatus,
    Imbalance,
    WorkerStatus,
)
from trimtab_client.policies import Decision, Policy
from trimtab_client.wire_policies import (
    decision_value,
    judgement_value,
    policy_message,
    policy_value,
)
from trimtab_client.wire_values import (
    given,
    step_value,
    topology_message,
    topology_value,
    uint32,
    version_value,
)
from trimtab_protocol.version import Version


def create_request(spec: DeploymentSpec, policy: Policy | None) -> pb.CreateDeploymentRequest:
    """The request of `create_deployment`."""
    return pb.CreateDeploymentRequest(
        spec=_spec_message(spec), policy=None if policy is None else policy_message(policy)
    )


def get_request(deployment: str) -> pb.GetDeploymentRequest:
    """The request of `get_deployment`."""
    return pb.GetDeploymentRequest(deployment=text(deployment, "deployment"))


def list_request() -> pb.ListDeploymentsRequest:
    """The request of `deployments`."""
    return pb.ListDeploymentsRequest()


def update_request(deployment: str, policy: Policy) -> pb.UpdatePolicyRequest:
    """The request of `update_policy`."""
    return pb.UpdatePolicyRequest(
        deployment=text(deployment, "deployment"), policy=policy_message(policy)
    )


def delete_request(deployment: str) -> pb.DeleteDeploymentRequest:
    """The request of `delete_deployment`."""
    return pb.DeleteDeploymentRequest(deployment=text(deployment, "deployment"))


def decisions_request(deployment: str, limit: int) -> pb.ListDecisionsRequest:
    """The request of `decisions`."""
    return pb.ListDecisionsRequest(
        deployment=text(deployment, "deployment"), limit=uint32(limit, "limit")
    )


def deployment_value(message: pb.Deployment) -> Deployment:
    """A deployment that the server answered.

    Raises:
        ProtocolError: it cannot be read.
    """
    return Deployment(
        _spec_value(message.spec), policy_value(message.policy), _status_value(message.status)
    )


def deployments_value(response: pb.ListDeploymentsResponse) -> list[Deployment]:
    """The answer of `deployments`.

    Raises:
        ProtocolError: one cannot be read.
    """
    return [deployment_value(message) for message in response.deployments]


def decisions_value(response: pb.ListDecisionsResponse) -> list[Decision]:
    """The answer of `decisions`.

    Raises:
        ProtocolError: one cannot be read.
    """
    return [decision_value(message) for message in response.decisions]


def _spec_message(spec: DeploymentSpec) -> pb.DeploymentSpec:
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
        in_force_seconds=given(message, "in_force_seconds"),
        phase=message.phase,
        switching_to=version_value(message, "switching_to"),
        not_ready=message.not_ready or None,
        paused_reason=message.paused_reason or None,
        pinned_digest=message.pinned_digest or None,
        workers_connected=message.workers_connected,
        workers_absent=message.workers_absent,
        step=step_value(message.step),
        estimate_age_seconds=given(message, "estimate_age_seconds"),
        balance=_balance_value(message.balance),
        last_decision=last,
        decisions=dict(message.decisions),
        past=tuple(Version(past.epoch, past.generation) for past in message.past),
        last_judged=judgement_value(message.last_judged)
        if message.HasField("last_judged")
        else None,
        workers=tuple(_worker_value(worker) for worker in message.workers),
    )


def _worker_value(message: pb.WorkerStatus) -> WorkerStatus:
    return WorkerStatus(
        worker=message.worker,
        gpus=tuple(message.gpus),
        connected=message.connected,
        incarnation=message.incarnation,
        last_step=step_value(message.last_step),
        report_age_seconds=given(message, "report_age_seconds"),
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
    seen = given(message, field)
    return None if seen is None else Imbalance(seen.worst, seen.median, seen.mean, seen.layers)
