"""Deployments and decisions as text, for people."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from enum import Enum

from trimtab_client.deployments import (
    Deployment,
    DeploymentSpec,
    Imbalance,
    RollbackPoint,
    WorkerStatus,
)
from trimtab_client.operations import Operation
from trimtab_client.policies import Certainty, Decision, Judgement, Policy
from trimtab_tools.cli.tables import one_line, table, table_of

NONE = "-"
"""What a table shows for a missing value."""


def overview(deployments: Sequence[Deployment]) -> str:
    """A table with a line for each deployment, and why none is ready if they share one reason."""
    lines = table_of(deployments, _OVERVIEW, left=["mode", "held", "switch", "last decision"])
    reasons = {each.status.not_ready for each in deployments}
    reason = reasons.pop() if len(reasons) == 1 else None
    return lines if reason is None else f"{lines}\nnot ready  {reason}\n"


def details(deployment: Deployment) -> str:
    """All details of one deployment."""
    title = f"{deployment.spec.name}: {shape(deployment.spec)}\n"
    workers = table_of(deployment.status.workers, _WORKER, left=["session", "GPUs"])
    pairs = _pairs(_status_pairs(deployment))
    points = table_of(deployment.status.points, _POINT, left=["cause"])
    return "\n".join([title, pairs, policy_text(deployment.policy), points, workers])


def policy_text(policy: Policy) -> str:
    """A table of a policy."""
    rows = [[field.name, _shown(getattr(policy, field.name))] for field in fields(policy)]
    return table(["policy", ""], rows)


def decisions_text(decisions: Sequence[Decision]) -> str:
    """A table with a line for each decision."""
    return table_of(decisions, _DECISION, left=["reason", "mode", "detail"])


def operations_text(operations: Sequence[Operation]) -> str:
    """A table with a line for each operation."""
    return table_of(operations, _OPERATION, left=["operation", "peer", "before", "after"])


def shape(spec: DeploymentSpec) -> str:
    """The sizes of a deployment, and its model."""
    topology = spec.topology
    size = (
        f"{spec.num_layers} layers of {spec.num_experts} experts in {topology.num_replicas} "
        f"slots on {topology.num_gpus} GPUs, {topology.num_nodes} nodes, "
        f"{topology.num_groups} router groups"
    )
    model = f", of {spec.model}" if spec.model else ""
    first = f", from its layer {spec.first_layer} on" if spec.first_layer else ""
    return size + model + first


def mode_of(deployment: Deployment) -> str:
    """The mode of the policy, and what keeps it from deciding."""
    held = _held(deployment)
    return _shown(deployment.policy.mode) + (f", {held}" if held != NONE else "")


def _held(deployment: Deployment) -> str:
    """Paused, pinned, both or neither: the policy decides nothing then."""
    status = deployment.status
    held = {"paused": status.paused_reason, "pinned": status.pinned_digest}
    return ", ".join(name for name, why in held.items() if why is not None) or NONE


def duration(seconds: float) -> str:
    """A time of any length, in the largest unit that it has at least one of; "-" for 0."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s" if seconds else NONE


def moment(time: datetime) -> str:
    """A time in UTC, to the second."""
    return f"{time:%Y-%m-%d %H:%M:%SZ}"


def _status_pairs(deployment: Deployment) -> Iterable[tuple[str, str]]:
    status, balance = deployment.status, deployment.status.balance
    yield "mode", mode_of(deployment)
    yield "switched by", _shown(deployment.spec.switched_by)
    if status.paused_reason is not None:
        yield "paused", status.paused_reason
    if status.pinned_digest is not None:
        yield "pinned to", status.pinned_digest.hex()
    yield "in force", _shown(status.in_force)
    yield "digest", status.digest.hex() or NONE
    yield "in force for", _seconds(status.in_force_seconds)
    yield "switch", status.phase
    if status.switching_to is not None:
        yield "switching to", str(status.switching_to)
    if status.not_ready is not None:
        yield "not ready", status.not_ready
    yield "workers", f"{status.workers_connected} connected, {status.workers_absent} absent"
    yield "unused for", duration(status.unused_seconds)
    if status.sessions_refused:
        yield "sessions refused", f"{status.sessions_refused}, the last to {status.last_refusal}"
    yield "step", _shown(status.step)
    yield "oldest report", _seconds(status.estimate_age_seconds)
    yield "imbalance predicted", _imbalance(balance.predicted)
    yield "  smoothed", _imbalance(balance.predicted_smoothed)
    yield "imbalance measured", _imbalance(balance.measured)
    yield "  smoothed", _imbalance(balance.measured_smoothed)
    if balance.shadow is not None:
        yield "imbalance in shadow", _imbalance(balance.shadow)
        yield "  smoothed", _imbalance(balance.shadow_smoothed)
        yield "  moves", str(balance.shadow_moves)
    yield "last decision", _decision(status.last_decision)
    if status.last_decision is not None and status.last_decision.certainty is not None:
        yield "  known", _known(status.last_decision.certainty)
    if status.last_judged is not None:
        judged = status.last_judged
        yield "last switch kept", f"{_kept(judged)}, of step {_shown(judged.step)}"
    often = sorted(status.decisions.items(), key=lambda each: (-each[1], each[0]))
    yield "decisions", ", ".join(f"{count} {reason}" for reason, count in often) or NONE


def _if_known(cell: Callable[[Certainty], str]) -> Callable[[Decision], str]:
    """What shows the certainty of a decision that has one."""
    return lambda each: NONE if each.certainty is None else cell(each.certainty)


def _decision(decision: Decision | None) -> str:
    if decision is None:
        return NONE
    why = f": {decision.detail}" if decision.detail else ""
    return f"{decision.reason.value}{why}, step {_shown(decision.step)}, {moment(decision.time)}"


def _known(certainty: Certainty) -> str:
    more = f", moves must gain {certainty.distrust:.1f} times as much"
    distrust = more if certainty.distrust > 1 else ""
    return (
        f"{certainty.tokens:.0f} tokens a layer, {certainty.overdispersion:.2f} times the variance "
        f"of independent ones: imbalance up to {_ratio(certainty.noise)} may be noise, predictions "
        f"are right to {certainty.sigma:.4f}{distrust}"
    )


def _kept(judged: Judgement) -> str:
    """The realised part of the promised gain, in percent."""
    share = judged.realised / judged.promised if judged.promised > 0 else 0.0
    return f"{share:.0%}"


def _pairs(pairs: Iterable[tuple[str, str]]) -> str:
    lines = list(pairs)
    width = max(len(name) for name, _ in lines)
    return "".join(f"{name.ljust(width)}  {one_line(value)}\n" for name, value in lines)


def _shown(value: object) -> str:
    if value is None:
        return NONE
    if isinstance(value, Enum):
        return str(value.value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _ratio(value: float | None) -> str:
    return NONE if value is None else f"{value:.3f}"


def _mean(imbalance: Imbalance | None) -> str:
    return _ratio(None if imbalance is None else imbalance.mean)


def _imbalance(imbalance: Imbalance | None) -> str:
    if imbalance is None:
        return NONE
    worst, median = _ratio(imbalance.worst), _ratio(imbalance.median)
    numbers = f"{_ratio(imbalance.mean)} mean, {median} median, {worst} worst layer"
    return f"{numbers}, of {imbalance.layers} with load" if imbalance.layers else numbers


def _seconds(value: float | None) -> str:
    return NONE if value is None else f"{value:.1f} s"


_OVERVIEW: Mapping[str, Callable[[Deployment], str]] = {
    "deployment": lambda each: each.spec.name,
    "mode": lambda each: _shown(each.policy.mode),
    "held": _held,
    "workers": lambda each: str(each.status.workers_connected),
    "absent": lambda each: str(each.status.workers_absent),
    "in force": lambda each: _shown(each.status.in_force),
    "predicted": lambda each: _mean(each.status.balance.predicted_smoothed),
    "measured": lambda each: _mean(each.status.balance.measured_smoothed),
    "unused": lambda each: duration(each.status.unused_seconds),
    "switch": lambda each: each.status.phase,
    "last decision": lambda each: (
        NONE if (last := each.status.last_decision) is None else last.reason.value
    ),
}

_WORKER: Mapping[str, Callable[[WorkerStatus], str]] = {
    "worker": lambda each: each.worker,
    "session": lambda each: "connected" if each.connected else "absent",
    "GPUs": lambda each: ",".join(map(str, each.gpus)),
    "incarnation": lambda each: str(each.incarnation),
    "step": lambda each: _shown(each.last_step),
    "last report": lambda each: _seconds(each.report_age_seconds),
}

_POINT: Mapping[str, Callable[[RollbackPoint], str]] = {
    "can go back to": lambda each: str(each.version),
    "in force since": lambda each: NONE if each.since is None else moment(each.since),
    "until": lambda each: NONE if each.until is None else moment(each.until),
    "cause": lambda each: each.cause.value,
    "imbalance": lambda each: _ratio(each.imbalance),
}

_OPERATION: Mapping[str, Callable[[Operation], str]] = {
    "time": lambda each: moment(each.time),
    "operation": lambda each: each.kind.value,
    "peer": lambda each: each.peer,
    "before": lambda each: each.before or NONE,
    "after": lambda each: each.after or NONE,
}

_DECISION: Mapping[str, Callable[[Decision], str]] = {
    "time": lambda each: moment(each.time),
    "step": lambda each: _shown(each.step),
    "reason": lambda each: each.reason.value,
    "mode": lambda each: each.mode.value,
    "before": lambda each: _ratio(each.imbalance_before),
    "after": lambda each: _ratio(each.imbalance_after),
    "sigma": _if_known(lambda known: f"{known.sigma:.4f}"),
    "noise": _if_known(lambda known: f"{known.noise:.3f}"),
    "tokens": _if_known(lambda known: f"{known.tokens:.0f}"),
    "spread": _if_known(lambda known: f"{known.overdispersion:.2f}"),
    "moves": lambda each: str(each.moves),
    "moving": lambda each: f"{each.move_seconds * 1e3:.1f} ms",
    "kept": lambda each: NONE if each.judged is None else _kept(each.judged),
    "times": lambda each: str(each.times),
    "detail": lambda each: each.detail,
}
