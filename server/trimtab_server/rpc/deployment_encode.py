"""Converts deployments to the messages that operators read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from trimtab.v1 import topology_pb2
from trimtab.v1alpha1 import deployment_service_pb2 as pb
from trimtab.v1alpha1 import switch_pb2
from trimtab_protocol.operations import OperationKind
from trimtab_protocol.version import Version
from trimtab_protocol.wire import values
from trimtab_protocol.wire.values import encode_placement, numbers_of
from trimtab_server import __version__
from trimtab_server.engine.decision_log import LoggedDecision
from trimtab_server.engine.deployment import Deployment
from trimtab_server.engine.deployment_spec import DeploymentSpec
from trimtab_server.engine.deployments import Deployments
from trimtab_server.engine.operations import Operation
from trimtab_server.engine.status import Status, WorkerStatus
from trimtab_server.policy.decide import Reason
from trimtab_server.policy.policy import Mode, Policy
from trimtab_server.policy.trust import Judgement
from trimtab_server.rollout.record import Origin, Served
from trimtab_server.rpc.deployment_decode import MODES, POLICY_FIELDS, SWITCHED_BY

_MODES: Mapping[Mode, Any] = {mode: number for number, mode in MODES.items()}
_SWITCHED_BY: Mapping[str, Any] = {by: number for number, by in SWITCHED_BY.items()}
_REASONS = numbers_of(Reason, pb.Reason, "REASON")
_OPERATIONS = numbers_of(OperationKind, pb.OperationKind, "OPERATION_KIND")
_CAUSES = numbers_of(Origin, pb.PlacementCause, "PLACEMENT_CAUSE")


def encode_deployment(deployment: Deployment, *, workers: bool = True) -> pb.Deployment:
    """A deployment; `workers` tells whether to include its workers."""
    return pb.Deployment(
        spec=_spec(deployment.name, deployment.spec),
        policy=encode_policy(deployment.policy),
        status=_status(deployment.status, workers=workers),
    )


def encode_server_status(deployments: Deployments, uptime: float) -> pb.GetServerStatusResponse:
    """The status of the server, which has run for `uptime` seconds."""
    known = deployments.all()
    return pb.GetServerStatusResponse(
        version=__version__,
        term=deployments.term,
        uptime_seconds=uptime,
        store_failure=deployments.store_health.failure or "",
        deployments=len(known),
        sessions=sum(len(each.sessions) for each in known),
    )


def encode_policy(policy: Policy) -> pb.Policy:
    """A policy, with all fields set."""
    settings = {name: getattr(policy, name) for name in POLICY_FIELDS}
    return pb.Policy(mode=_MODES[policy.mode], **settings)


def encode_version(version: Version | None) -> switch_pb2.Version | None:
    """A version; None for None."""
    return None if version is None else values.encode_version(version)


def encode_topology(spec: DeploymentSpec) -> topology_pb2.Topology:
    """The topology of a deployment."""
    return topology_pb2.Topology(**vars(spec.topology))


def encode_served(served: Served, spec: DeploymentSpec) -> dict[str, Any]:
    """The fields of GetPlacement's answer, and of those of WatchPlacement."""
    return {
        "version": encode_version(served.version),
        "placement": encode_placement(served.placement),
        "topology": encode_topology(spec),
        "num_experts": spec.num_experts,
    }


def encode_decision(logged: LoggedDecision) -> pb.Decision:
    """A decision."""
    candidate = logged.decision.candidate
    message = pb.Decision(
        time=_timestamp(logged.at),
        step=logged.step,
        reason=_REASONS[logged.decision.reason],
        detail=logged.detail,
        mode=_MODES[logged.mode],
        times=logged.times,
    )
    if candidate is not None:
        message.imbalance_before = candidate.before
        message.imbalance_after = candidate.after
        message.moves = candidate.moves
        message.move_seconds = candidate.seconds
    certainty = logged.decision.certainty
    if certainty is not None:
        message.certainty.CopyFrom(pb.Certainty(**vars(certainty)))
    if logged.judged is not None:
        message.judged.CopyFrom(_judgement(logged.judged))
    return message


def encode_operation(operation: Operation) -> pb.Operation:
    """An operation of an operator."""
    return pb.Operation(
        time=_timestamp(operation.at),
        kind=_OPERATIONS[operation.kind],
        peer=operation.peer,
        before=operation.before,
        after=operation.after,
    )


def _judgement(judgement: Judgement) -> pb.Judgement:
    return pb.Judgement(**vars(judgement))


def _spec(name: str, spec: DeploymentSpec) -> pb.DeploymentSpec:
    return pb.DeploymentSpec(
        name=name,
        model=spec.model,
        first_layer=spec.first_layer,
        num_layers=spec.num_layers,
        num_experts=spec.num_experts,
        topology=encode_topology(spec),
        switched_by=_SWITCHED_BY[spec.switched_by],
    )


def _status(status: Status, *, workers: bool) -> pb.DeploymentStatus:
    return pb.DeploymentStatus(
        in_force=encode_version(status.in_force),
        digest=status.digest,
        in_force_seconds=status.in_force_seconds,
        phase=status.phase,
        switching_to=encode_version(status.switching_to),
        not_ready=status.not_ready or "",
        paused_reason=status.paused or "",
        pinned_digest=status.pinned or b"",
        workers_connected=len(status.workers) - status.absent,
        workers_absent=status.absent,
        step=status.step,
        estimate_age_seconds=status.estimate_age,
        balance=_balance(status),
        last_decision=None
        if status.last_decision is None
        else encode_decision(status.last_decision),
        decisions=status.decisions,
        last_judged=None if status.last_judgement is None else _judgement(status.last_judgement),
        past=[values.encode_version(each.version) for each in status.past],
        points=[_point(each) for each in status.past],
        unused_seconds=status.unused_seconds,
        sessions_refused=status.sessions_refused,
        last_refusal=status.last_refusal,
        workers=[_worker(each) for each in status.workers] if workers else [],
    )


def _point(served: Served) -> pb.RollbackPoint:
    return pb.RollbackPoint(
        version=encode_version(served.version),
        since=_timestamp(served.since),
        until=_timestamp(served.until),
        cause=_CAUSES.get(served.origin),
        imbalance=served.imbalance,
    )


def _timestamp(seconds: float | None) -> Timestamp | None:
    if seconds is None:
        return None
    time = Timestamp()
    time.FromNanoseconds(round(seconds * 1e9))
    return time


def _balance(status: Status) -> pb.BalanceStatus:
    known = {name: over for name, over in vars(status.balance).items() if over is not None}
    balance = {name: pb.Imbalance(**over._asdict()) for name, over in known.items()}
    return pb.BalanceStatus(shadow_moves=status.shadow_moves, **balance)


def _worker(worker: WorkerStatus) -> pb.WorkerStatus:
    return pb.WorkerStatus(
        worker=worker.worker,
        gpus=worker.gpus,
        connected=worker.connected,
        incarnation=worker.incarnation,
        last_step=worker.last_step,
        report_age_seconds=worker.report_age,
    )
