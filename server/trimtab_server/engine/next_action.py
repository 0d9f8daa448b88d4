"""Decides what a deployment does next: plan, go to its pin, or wait. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from trimtab_protocol.placement import Placement
from trimtab_server.policy.decide import Reason, Situation, before_planning
from trimtab_server.policy.policy import Mode, Policy


@dataclass(frozen=True)
class StepHistory:
    """What earlier decisions have left behind. Steps are -1 if there is none.

    Attributes:
        newest: the newest step, and when it was first seen; None before the first decision.
        step_seconds: time between two steps; 0 if it is unknown.
        decided_at: step of the last decision for which the load was looked at.
        switched_at: step of the last decision that began a rollout.
    """

    newest: tuple[int, float] | None = None
    step_seconds: float = 0.0
    decided_at: int = -1
    switched_at: int = -1

    def observed(self, step: int, at: float) -> StepHistory:
        """The history after a look at the workers' steps.

        Before the first report, it is as if steps had begun at 0. If they had not, the first step
        time is far too short, which makes moves look expensive for a moment.
        """
        if self.newest is None:
            return replace(self, newest=(step, at))
        newest, newest_at = self.newest
        if step == newest:
            return self
        if self.restarts_at(step):
            return replace(self, newest=(step, at), decided_at=-1, switched_at=-1)
        seconds = (at - newest_at) / (step - newest)
        return replace(self, newest=(step, at), step_seconds=seconds)

    def restarts_at(self, step: int) -> bool:
        """Whether steps count from the beginning again, which is a new group of workers."""
        return self.newest is not None and step < self.newest[0]


@dataclass(frozen=True)
class DeploymentSnapshot:
    """The state of a deployment, as far as its next action depends on it.

    Attributes:
        at: the time, in seconds on a clock that only rises.
        step: the last step that all workers have reported; -1 if there is none.
        known_steps: number of steps in the load estimate.
        served: the placement in force; None if there is none.
        planned_from: the placement that a plan starts from: the one in force or, in shadow mode,
            the one that its decisions have led to; None if there is none.
        pinned: the placement that the deployment is pinned to; None if it is not pinned.
        offer_blocked: why the rollout accepts no offer; None if it does.
        backoff: why no offer may be made yet after the last one was aborted; None if it may.
        missing_report: which worker's load is missing; None if none is.
        step_seconds: duration of a step, if the engine has told it; None if it has not.
        history: of earlier decisions.
    """

    at: float
    step: int
    known_steps: float
    served: Placement | None
    planned_from: Placement | None
    pinned: Placement | None = None
    offer_blocked: str | None = None
    backoff: str | None = None
    missing_report: str | None = None
    step_seconds: float | None = None
    history: StepHistory = StepHistory()

    @property
    def not_ready(self) -> str | None:
        """Why nothing can be planned; None if it can."""
        return self.offer_blocked or self.backoff or self.missing_report


@dataclass(frozen=True)
class Idle:
    """Do nothing. This is no decision of the policy."""


@dataclass(frozen=True)
class Wait:
    """Decide to move nothing, without a look at the load."""

    reason: Reason


@dataclass(frozen=True)
class GoToPin:
    """Begin a rollout to the pinned placement."""

    placement: Placement


@dataclass(frozen=True)
class Plan:
    """Plan from this placement, and see whether the plan is worth its moves."""

    start: Placement


Action = Idle | Wait | GoToPin | Plan


def next_action(snapshot: DeploymentSnapshot, policy: Policy) -> Action:
    """What to do in this state. A pin comes before the policy."""
    pinned, served = snapshot.pinned, snapshot.served
    if pinned is not None:
        there = served is None or pinned.digest == served.digest
        return Idle() if there or snapshot.backoff is not None else GoToPin(pinned)
    if policy.mode is Mode.OFF:
        return Idle()
    history = snapshot.history
    situation = Situation(
        step=snapshot.step,
        decided_at=history.decided_at,
        switched_at=history.switched_at,
        not_ready=snapshot.not_ready,
        known_steps=snapshot.known_steps,
        step_seconds=history.step_seconds,
    )
    reason = before_planning(situation, policy)
    if reason is not None or snapshot.planned_from is None:
        return Wait(reason or Reason.NOT_READY)
    return Plan(snapshot.planned_from)
