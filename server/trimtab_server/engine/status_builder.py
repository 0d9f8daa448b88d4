"""Builds the status of a deployment from its parts."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping

from trimtab_server.engine.decision_log import DecisionLog
from trimtab_server.engine.deployment_core import DeploymentCore
from trimtab_server.engine.status import BalanceStatus, Status, WorkerStatus
from trimtab_server.rollout.rollout import Rollout


def build_status(
    core: DeploymentCore,
    decisions: DecisionLog,
    balance: BalanceStatus,
    shadow_moves: int,
    began: float,
) -> Status:
    """The status now. `began`: since when the deployment is known, on the event loop's clock."""
    rollout, now = core.rollout, asyncio.get_running_loop().time()
    record, since = rollout.record, core.driver.in_force_since
    return Status(
        in_force=record.in_force,
        digest=record.placement.digest if record.placement else b"",
        in_force_seconds=_age(since, now),
        phase=rollout.phase.value,
        switching_to=record.switch.version if record.switch else None,
        not_ready=core.blocked_reason,
        mode="pinned" if record.pinned else core.mode.value,
        paused=record.paused,
        pinned=record.pinned.digest if record.pinned else None,
        workers=_workers(core, now),
        serving=_serving(rollout),
        step=core.loads.step,
        known_seconds=now - began,
        balance=balance,
        shadow_moves=shadow_moves,
        last_decision=decisions.last,
        last_judgement=decisions.judged,
        decisions=dict(decisions.counts),
        switched_by=core.spec.switched_by,
        past=tuple(each for each in record.past if each.placement != record.placement),
        unused_seconds=core.unused_seconds,
        sessions_refused=core.sessions_refused,
        last_refusal=core.last_refusal,
    )


def _workers(core: DeploymentCore, now: float) -> tuple[WorkerStatus, ...]:
    epoch, loads = core.rollout.record.epoch, core.loads
    members = {} if epoch is None else epoch.members
    known = {name: (member.incarnation, member.gpus) for name, member in members.items()}
    hellos = [session.request.hello for session in core.sessions]
    known |= {hello.worker: (hello.incarnation, hello.gpus) for hello in hellos}
    connected = core.sessions.workers
    return tuple(
        WorkerStatus(
            worker,
            gpus,
            worker in connected,
            incarnation,
            loads.last_step_of(worker),
            _age(loads.reported_at(worker), now),
        )
        for worker, (incarnation, gpus) in sorted(known.items())
    )


def _age(at: float | None, now: float) -> float | None:
    return None if at is None else now - at


def _serving(rollout: Rollout) -> Mapping[str, int]:
    record, counts = rollout.record, Counter(in_force=0, next=0, other=0)
    following = record.switch.version if record.switch else None
    for version in rollout.serving:
        known = {record.in_force: "in_force", following: "next"}
        counts[known.get(version, "other") if version else "other"] += 1
    return counts
