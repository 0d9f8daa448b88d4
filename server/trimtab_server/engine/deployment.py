"""One deployment: its workers' side, its operators' side and its automation. On the event loop."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from trimtab_protocol.placement import Placement
from trimtab_server.domain.errors import AlreadyExistsError
from trimtab_server.engine.automation import Automation
from trimtab_server.engine.config import SessionConfig
from trimtab_server.engine.decision_log import DecisionLog
from trimtab_server.engine.deployment_core import DeploymentCore
from trimtab_server.engine.deployment_spec import DeploymentSpec
from trimtab_server.engine.deployment_store import DeploymentStore
from trimtab_server.engine.engine_side import EngineSide
from trimtab_server.engine.events import DeploymentEvents
from trimtab_server.engine.operator_side import OperatorSide
from trimtab_server.engine.planner import Planner
from trimtab_server.engine.sessions import WorkerSession
from trimtab_server.engine.status import Status
from trimtab_server.engine.usage import Unused, UsagePeriods
from trimtab_server.engine.worker_side import WorkerSide
from trimtab_server.loads.estimates import Loads
from trimtab_server.policy.decide import Decision
from trimtab_server.policy.policy import Policy
from trimtab_server.rollout.record import Record
from trimtab_server.rollout.rollout import Rollout


class Deployment:
    """A deployment that its first worker or an operator created, or that the store had.

    Args:
        store, record, events, config: see `DeploymentCore`.
        planner: makes plans; None if this server makes none.

    Attributes:
        name: of the deployment.
        events: tells the observer what happens in it.
        workers: what its workers do.
        operators: what its operators do.
        engine: what its engine does, if that switches by itself.
    """

    def __init__(
        self,
        store: DeploymentStore,
        record: Record,
        events: DeploymentEvents,
        config: SessionConfig,
        planner: Planner | None = None,
    ) -> None:
        self.name, self.events = store.name, events
        self._core = DeploymentCore(store, record, events, config)
        self._automation = Automation(self._core, planner)
        self.workers = WorkerSide(self._core, self._automation)
        self.operators = OperatorSide(self._core, self._automation)
        self.engine = EngineSide(self._core, self._automation, self.workers)

    @property
    def spec(self) -> DeploymentSpec:
        """What its workers agree on."""
        return self._core.spec

    @property
    def policy(self) -> Policy:
        """What its operators want."""
        return self._core.policy

    @property
    def rollout(self) -> Rollout:
        """The state machine of the rollout, to be read."""
        return self._core.rollout

    @property
    def blocked_reason(self) -> str | None:
        """Why nothing can be offered now; None if it can."""
        return self._core.blocked_reason

    @property
    def durable(self) -> Record:
        """The record of the rollout that the store has."""
        return self._core.driver.durable

    @property
    def target(self) -> Placement | None:
        """The placement that a rollout is under way to; None if there is none."""
        return self._core.driver.staged.target

    @property
    def sessions(self) -> tuple[WorkerSession, ...]:
        """The open sessions."""
        return tuple(self._core.sessions)

    @property
    def decisions(self) -> DecisionLog:
        """The last decisions."""
        return self._automation.decisions

    @property
    def status(self) -> Status:
        """The current status."""
        return self._automation.status

    @property
    def is_deleted(self) -> bool:
        """Whether the deployment was deleted or is closed. Another may have its name."""
        return self._core.is_deleted

    @property
    def is_unused(self) -> bool:
        """Whether it has no session, and the store has nothing of it."""
        return not self._core.sessions and not self._core.store.has_definition

    @property
    def unused(self) -> Unused:
        """What says whether it has expired."""
        record, by_operator = self.durable, self._core.store.definition.by_operator
        return Unused(
            seconds=self._core.unused_seconds,
            is_new=record.epoch is None and not by_operator,
            is_wanted=record.pinned is not None or record.paused is not None,
        )

    def load(self) -> Loads:
        """Tokens of each expert a step, as all workers have reported, float64 [L, E]."""
        return self._core.loads.load()

    def require_same(self, spec: DeploymentSpec, policy: Callable[[Policy], Policy]) -> None:
        """Raise AlreadyExistsError if creating the deployment like this would change it."""
        differences = self.spec.differences(spec.updated_from(self.spec))
        if not differences and policy(self.policy) != self.policy:
            differences = "its policy: update it instead"
        if differences:
            raise AlreadyExistsError(
                f"deployment {self.name!r} exists and differs in {differences}"
            )

    async def start(self) -> None:
        """Restore what the workers had counted. Call this once, before all else.

        Raises:
            StoreError: the counters cannot be loaded.
        """
        await self._core.start()

    async def save_usage(self, periods: UsagePeriods) -> None:
        """See `DeploymentCore.save_usage`."""
        await self._core.save_usage(periods)

    def note_refusal(self, worker: str, reason: str) -> None:
        """Note that a worker of this name was refused a session."""
        self._core.sessions_refused += 1
        self._core.last_refusal = f"{worker!r}: {reason}"

    async def save_counters(self) -> None:
        """Save what the workers have counted, if they have reported since the last time.

        Raises:
            StoreError: the counters were not saved; the next call tries again.
        """
        await self._core.save_counters()

    async def rebalance_once(self) -> Decision | None:
        """See `Automation.rebalance_once`. If the engine switches, only its calls make plans."""
        if self.spec.by_engine:
            self._automation.refresh_status()
            return None
        logged = await self._automation.rebalance_once()
        return None if logged is None else logged.decision

    def mark_deleted(self, deleted: bool = True) -> None:
        """Refuse every further change with NotFoundError, or allow changes again."""
        self._core.is_deleted = deleted

    def changed(self) -> Coroutine[Any, Any, object]:
        """Returns a wait for the next change to the rollout or the sessions, from this call on."""
        return self._core.changed()

    async def wait_idle(self) -> None:
        """Return once all changes that were submitted have been applied."""
        await self._core.wait_idle()

    async def close(self) -> None:
        """Finish all changes, and refuse further ones."""
        await self.engine.wait_idle()
        await self._core.close()
