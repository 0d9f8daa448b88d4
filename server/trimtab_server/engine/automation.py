"""What a deployment does on its own: goes to its pin, or rebalances as its policy says."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from trimtab_protocol.placement import Placement
from trimtab_server.domain.errors import FailedPreconditionError
from trimtab_server.engine.backoff import Backoff
from trimtab_server.engine.balance_monitor import BalanceMonitor
from trimtab_server.engine.decision_log import DecisionLog, LoggedDecision
from trimtab_server.engine.deployment_core import DeploymentCore
from trimtab_server.engine.next_action import DeploymentSnapshot, GoToPin, Idle, next_action
from trimtab_server.engine.planner import Planner
from trimtab_server.engine.rebalancer import RebalancePlan, Rebalancer
from trimtab_server.engine.shadow import ShadowPlacement
from trimtab_server.engine.status import Status
from trimtab_server.engine.status_builder import build_status
from trimtab_server.engine.stored_deployment import StoredDeployment
from trimtab_server.policy.decide import Reason
from trimtab_server.policy.policy import Mode
from trimtab_server.rollout.record import Origin


class Automation:
    """Called again and again while the server runs. `planner`: None if the server makes none."""

    def __init__(self, core: DeploymentCore, planner: Planner | None) -> None:
        self.decisions = DecisionLog()
        self._core = core
        spec = core.spec
        self._rebalancer = Rebalancer(planner, spec.topology, spec.bytes_per_expert, core.policy)
        self._shadow = ShadowPlacement()
        self._monitor = BalanceMonitor(core.loads)
        self._backoff = Backoff()
        self._own_target: Placement | None = None
        self._began = asyncio.get_running_loop().time()

    @property
    def status(self) -> Status:
        """The status of the deployment."""
        return build_status(
            self._core, self.decisions, self._monitor.balance, self._shadow.moves, self._began
        )

    def adopt(self, definition: StoredDeployment) -> None:
        """Go on with this spec and policy."""
        core = self._core
        if definition.policy.smoothing != core.policy.smoothing:
            core.loads.set_smoothing(definition.policy.smoothing)
        core.store.definition = definition
        if definition.policy.mode is not Mode.SHADOW:
            self._shadow.reset()
        self._rebalancer.policy = definition.policy
        self._rebalancer.bytes_per_expert = definition.spec.bytes_per_expert

    def reset(self) -> None:
        """Forget what was learned from the load: it was no traffic."""
        self._rebalancer.reset()

    async def rebalance_once(self, step_seconds: float | None = None) -> LoggedDecision | None:
        """Refresh the status, and begin a rollout if the pin or the policy asks for one.

        Args:
            step_seconds: duration of a step; None if only the time between reports tells.

        Returns:
            The decision; None if the policy was not asked.

        Raises:
            ResourceExhaustedError: the solver has too much to do, or the deployment is too large.
            UnavailableError: the store failed, or the solver is about to stop.
        """
        core, served = self._core, self._core.rollout.record.placement
        self._backoff.update(core.rollout.record, self._now)
        snapshot, mode = self._snapshot(step_seconds), core.mode
        self._rebalancer.gpu_loads = core.gpu_loads
        self.refresh_status()
        began = time.perf_counter()
        result = await self._rebalancer.decide(snapshot, core.loads)
        if isinstance(result, GoToPin):
            await self._start_pin(result.placement)
        if isinstance(result, GoToPin | Idle):
            return None
        logged = self._log(snapshot, mode, result, time.perf_counter() - began)
        # The mode may have been changed while the plan was made.
        if result.decision.moves and result.target is not None and mode is core.mode:
            if mode is Mode.SHADOW:
                candidate = result.decision.candidate
                self._shadow.move_to(result.target, candidate.moves if candidate else 0)
                self._note_shadow(snapshot.step)
                self._rebalancer.rollout_started()
            else:
                await self._start_rollout(result.target, result.order, served)
        return logged

    async def go_to_pin(self) -> None:
        """Begin a rollout to the pinned placement, without regard to earlier aborts.

        Does nothing if there is no pin, if it is in force, or if nothing can be offered now.
        """
        self._backoff = Backoff()
        action = next_action(self._snapshot(), self._core.policy)
        if isinstance(action, GoToPin):
            await self._start_pin(action.placement)

    def abandon_own_target(self) -> None:
        """Abandon the rollout that is under way if a decision of the policy began it."""
        staged = self._core.driver.staged
        if staged.target is self._own_target:
            staged.abandon()

    @property
    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _snapshot(self, step_seconds: float | None = None) -> DeploymentSnapshot:
        core, now = self._core, self._now
        record = core.rollout.record
        planned_from = record.placement
        if core.mode is Mode.SHADOW:
            planned_from = self._shadow.follow(record.placement)
            self._note_shadow(core.step)
        return DeploymentSnapshot(
            at=now,
            step=core.step,
            known_steps=core.loads.steps,
            served=record.placement,
            planned_from=planned_from,
            pinned=record.pinned,
            offer_blocked=core.blocked_reason or core.precedence_reason,
            # An engine that switches by itself asks at intervals, which are delay enough.
            backoff=None if core.spec.by_engine else self._backoff.blocked_reason(now),
            missing_report=core.missing_report,
            step_seconds=step_seconds,
        )

    def _note_shadow(self, step: int) -> None:
        """Write the placement of shadow mode to the history if it is another one than before.

        Not before the first report: nobody could tell from when on it would have served.
        """
        if step >= 0 and (changed := self._shadow.unnoted()) is not None:
            placement, moves = changed
            self._core.events.shadow_moved(placement, moves, step)

    async def _start_rollout(
        self, target: Placement, order: tuple[int, ...], planned_from: Placement | None
    ) -> None:
        """Carry out a decision, unless something has changed while the plan was made."""
        core = self._core

        def blocked_reason() -> str | None:
            if core.rollout.record.placement is not planned_from:
                return "another placement has come into force"
            if core.mode is not Mode.ACTIVE:
                return f"the deployment is {core.mode.value}"
            return core.pinned_reason or core.precedence_reason

        with suppress(FailedPreconditionError):
            self._own_target = target
            await core.start_rollout(target, order, Origin.DECIDED, blocked_reason)
            self._rebalancer.rollout_started()
            self._backoff.record_offer(core.rollout.record)

    async def _start_pin(self, pinned: Placement) -> None:
        core = self._core
        origin = core.rollout.record.pin_origin

        def blocked_reason() -> str | None:
            is_pinned = core.rollout.record.pinned is pinned
            return None if is_pinned else "another placement is pinned"

        # If no workers are connected or a switch is open, a later call will do.
        with suppress(FailedPreconditionError):
            await core.start_rollout(pinned, (), origin, blocked_reason)
            self._backoff.record_offer(core.rollout.record)

    def refresh_status(self) -> None:
        """Compute how balanced the deployment is, and tell the metrics its status."""
        core, record = self._core, self._core.rollout.record
        if record.placement is not None and record.epoch is not None:
            members = record.epoch.members if core.spec.scope == "local" else {}
            owners = {worker: member.gpus for worker, member in members.items()}
            shadow = self._shadow.placement
            self._monitor.refresh(record.placement, shadow, owners, core.gpu_loads)
            predicted = self._monitor.balance.predicted_smoothed
            core.driver.imbalance = None if predicted is None else predicted.mean
        core.events.observer.status_refreshed(core.name, self.status)

    def _log(
        self, snapshot: DeploymentSnapshot, mode: Mode, plan: RebalancePlan, seconds: float
    ) -> LoggedDecision:
        decision = plan.decision
        detail = (snapshot.not_ready or "") if decision.reason is Reason.NOT_READY else ""
        logged = LoggedDecision(
            time.time(), snapshot.step, mode, decision, seconds, detail, plan.judged
        )
        self._core.events.decided(logged, is_new=self.decisions.add(logged))
        return logged
