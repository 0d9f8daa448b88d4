"""Looks at the parts of a deployment, and says how it is."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping

from trimtab_server.engine.connections import Connections
from trimtab_server.engine.status import Outlook, Status, WorkerStatus
from trimtab_server.engine.steering import Steering
from trimtab_server.engine.tallies import Tallies
from trimtab_server.rollout.rollout import Rollout


def inspect(
    rollout: Rollout,
    connections: Connections,
    tallies: Tallies,
    steering: Steering,
    outlook: Outlook,
    in_force_since: float | None,
    began: float,
) -> Status:
    """The status now. `in_force_since` and `began` are of the event loop's clock."""
    record, now = rollout.record, asyncio.get_running_loop().time()
    return Status(
        in_force=record.in_force,
        digest=record.placement.digest if record.placement else b"",
        in_force_seconds=None if in_force_since is None else now - in_force_since,
        phase=rollout.phase.value,
        switching_to=record.switch.version if record.switch else None,
        not_ready=rollout.why_not(),
        mode="pinned" if record.pinned else steering.policy.mode.value,
        paused=record.paused,
        pinned=record.pinned.digest if record.pinned else None,
        workers=_workers(rollout, connections, tallies, now),
        serving=_serving(rollout),
        step=tallies.step,
        known_seconds=now - began,
        outlook=outlook,
        moves_in_shadow=steering.shadow.moves,
        decided=steering.decisions.last,
        judged=steering.decisions.judged,
        decisions=steering.decisions.counts,
        past=tuple(served.version for served in record.past),
    )


def _workers(
    rollout: Rollout, connections: Connections, tallies: Tallies, now: float
) -> tuple[WorkerStatus, ...]:
    epoch = rollout.record.epoch
    members = {} if epoch is None else epoch.members
    known = {name: (member.incarnation, member.gpus) for name, member in members.items()}
    hellos = [session.arrival.hello for session in connections]
    known |= {hello.worker: (hello.incarnation, hello.gpus) for hello in hellos}
    here = connections.workers
    return tuple(
        WorkerStatus(
            worker,
            gpus,
            worker in here,
            incarnation,
            tallies.last_step_of(worker),
            _age(tallies.heard_at(worker), now),
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
