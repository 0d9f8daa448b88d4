"""The parts of a deployment that its workers, its operators and its automation share.

Lives on the event loop. Changes to the rollout are applied one at a time, each to its end even if
the call that asked for it is cancelled: whatever was made durable must have its effects.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from trimtab_protocol.placement import Placement
from trimtab_protocol.version import Version
from trimtab_server.domain.errors import FailedPreconditionError, NotFoundError, UnavailableError
from trimtab_server.domain.placement import count_moves
from trimtab_server.engine.config import SessionConfig
from trimtab_server.engine.departure import absent_of
from trimtab_server.engine.deployment_spec import DeploymentSpec
from trimtab_server.engine.deployment_store import DeploymentStore
from trimtab_server.engine.events import DeploymentEvents
from trimtab_server.engine.gpu_loads import GpuLoads, even_loads
from trimtab_server.engine.load_aggregator import LoadAggregator, ReportingGroup
from trimtab_server.engine.rollout_driver import (
    DriverEvent,
    OfferOpened,
    PlacementApplied,
    RolloutChange,
    RolloutDriver,
)
from trimtab_server.engine.serial_executor import SerialExecutor
from trimtab_server.engine.sessions import Sessions
from trimtab_server.engine.usage import Usage, UsagePeriods
from trimtab_server.policy.policy import Mode, Policy
from trimtab_server.rollout.effects import Effect
from trimtab_server.rollout.record import Origin, Record
from trimtab_server.rollout.rollout import Rollout
from trimtab_server.store.errors import StoreError

_T = TypeVar("_T")

_OBSERVED = "the engine only reports, and switches as its own policy says"


class DeploymentCore:
    """Spec, policy, sessions, load and rollout of one deployment.

    `apply`, `run_exclusive` and `start_rollout` raise NotFoundError once it is closed; a change
    raises UnavailableError if the store fails.

    Args:
        store: what the store keeps of the deployment.
        record: the record of the rollout that the store has.
        config: settings of sessions and switches.

    Attributes:
        sessions: the open sessions.
        loads: what the workers have reported.
        is_observed: whether its engine only reports, and switches as its own policy says.
        usage: when it was used last.
        gpu_loads: predicts the load of each GPU, by how the engine divides tokens over replicas.
        operators_waiting: number of operators whose switches come before those of the policy.
        is_deleted: whether the deployment was deleted or is closed, so that every further change
            is refused with NotFoundError. Another may have its name.
        sessions_refused: number of workers' sessions that were refused since the server started.
        last_refusal: the last of these, with the worker's name; empty if there is none.
    """

    def __init__(
        self,
        store: DeploymentStore,
        record: Record,
        events: DeploymentEvents,
        config: SessionConfig,
    ) -> None:
        self.name = store.name
        self.store = store
        self.events = events
        self.sessions = Sessions()
        spec, smoothing = self.spec, self.policy.smoothing
        self.driver = RolloutDriver(record, store, self.sessions, events, config.rollback_points)
        self.loads = LoadAggregator(
            spec.num_layers, spec.num_experts, smoothing, events, self._reporting_group
        )
        self.usage = Usage(store.definition.used_until)
        self.is_observed = False
        self.gpu_loads: GpuLoads = even_loads
        self.operators_waiting = 0
        self.is_deleted = False
        self._config = config
        self.sessions_refused = 0
        self.last_refusal = ""
        self._executor = SerialExecutor()
        self._expiry: asyncio.TimerHandle | None = None

    @property
    def spec(self) -> DeploymentSpec:
        """What its workers agree on."""
        return self.store.definition.spec

    @property
    def policy(self) -> Policy:
        """What its operators want."""
        return self.store.definition.policy

    @property
    def mode(self) -> Mode:
        """What is done with decisions: at most reported if the engine only observes."""
        mode = self.policy.mode
        return Mode.SHADOW if mode is Mode.ACTIVE and self.is_observed else mode

    @property
    def rollout(self) -> Rollout:
        """The state machine of the rollout, to be read."""
        return self.driver.rollout

    @property
    def blocked_reason(self) -> str | None:
        """Why nothing can be offered now; None if it can.

        While the store fails, an offer would only end all sessions.
        """
        return self.store.blocked_reason or self.rollout.blocked_reason()

    @property
    def absent(self) -> int | None:
        """Number of workers of the group without a session; None before the first group."""
        return absent_of(self.rollout.record.epoch, self.sessions.workers)

    @property
    def pinned_reason(self) -> str | None:
        """Why an operator or a decision cannot start a rollout; None if there is no pin."""
        pinned = self.rollout.record.pinned
        if pinned is None:
            return None
        return f"the deployment is pinned to {pinned.digest.hex()[:12]}: unpin it first"

    @property
    def unused_seconds(self) -> float:
        """Seconds since it had a session, or its engine called; 0 if it is in use."""
        # The session of an engine that switches by itself does not end with its process.
        if self.sessions and not self.spec.by_engine:
            return 0.0
        return self.usage.unused_seconds

    @property
    def precedence_reason(self) -> str | None:
        """Why the policy cannot start a rollout although one could begin; None if it can."""
        return "an operator's switch comes first" if self.operators_waiting else None

    async def start(self) -> None:
        """Restore what the workers had counted. Call this once, before all else.

        Raises:
            StoreError: the counters cannot be loaded.
        """
        self.loads.restore(await self.store.load_counters())
        await self.driver.start()
        self.events.rollout_changed(self.rollout, 0)

    # Changes to the rollout.

    async def apply(self, change: RolloutChange) -> Record:
        """Apply a change to the rollout, and all that follows; returns the record before it."""
        return await self.run_exclusive(partial(self._change, change))

    def submit(self, change: RolloutChange) -> asyncio.Task[None]:
        """Apply a change in a task that need not be awaited: the task does not fail."""
        return self._executor.start(self._apply_quietly(change))

    async def run_exclusive(self, work: Callable[[], Awaitable[_T]]) -> _T:
        """Do other work while no change is applied to the rollout; returns its result."""
        return await self._executor.run(self._run_exclusive(work))

    async def start_rollout(
        self,
        target: Placement,
        order: Sequence[int],
        origin: Origin,
        blocked_reason: Callable[[], str | None],
    ) -> None:
        """Begin a rollout. Returns once its first stage is offered.

        Args:
            target: the placement to reach.
            order: layers, the most urgent first.
            origin: why it begins.
            blocked_reason: called when it is this change's turn, since others may have come
                before it; returns why the rollout must not begin, or None.

        Raises:
            FailedPreconditionError: nothing can be offered now.
        """

        def start() -> list[Effect]:
            reason = self.store.blocked_reason or blocked_reason()
            if self.is_observed:
                reason = _OBSERVED
            if reason is not None:
                raise FailedPreconditionError(reason)
            return self.driver.staged.start(target, order, origin, self.rollout, self.sessions)

        await self.apply(start)

    def changed(self) -> Coroutine[Any, Any, object]:
        """Returns a wait for the next change, counted from this call."""
        return self._executor.changed()

    async def wait_idle(self) -> None:
        """Return once all changes that were submitted have been applied."""
        await self._executor.wait_idle()

    async def close(self) -> None:
        """Finish all changes, refuse further ones, and wake all who wait for a change."""
        if self._expiry is not None:
            self._expiry.cancel()
        await self.wait_idle()
        self.is_deleted = True
        async with self._executor.exclusive():
            pass
        self.events.close()

    async def _run_exclusive(self, work: Callable[[], Awaitable[_T]]) -> _T:
        async with self._executor.exclusive():
            if self.is_deleted:
                raise NotFoundError(f"there is no deployment {self.name!r} any more")
            return await work()

    async def _change(self, change: RolloutChange) -> Record:
        try:
            before, events = await self.driver.apply(change)
            # What is durable is told even if the store fails at the next stage.
            self._handle(events)
            self._handle(await self.driver.advance())
        except StoreError as error:
            unavailable = self.events.store_unavailable(error)
            self.driver.recover_later(unavailable)
            raise unavailable from error
        else:
            return before
        finally:
            self.events.rollout_changed(self.rollout, len(self.sessions))

    async def _apply_quietly(self, change: RolloutChange) -> None:
        # An alarm reports a failure of the store, and a closed deployment needs no change.
        with suppress(UnavailableError, NotFoundError):
            await self._run_exclusive(partial(self._change, change))

    def _handle(self, events: list[DriverEvent]) -> None:
        for event in events:
            match event:
                case OfferOpened(version):
                    # An engine takes an offer with its next call, whenever that comes.
                    if not self.spec.by_engine:
                        self._expire_later(version)
                case PlacementApplied(before, after):
                    moves = count_moves(before, after)
                    moved_bytes = moves * self.spec.bytes_per_expert
                    self.events.observer.placement_applied(self.name, moves, moved_bytes)

    def _expire_later(self, version: Version) -> None:
        # At most one offer is open.
        if self._expiry is not None:
            self._expiry.cancel()
        expire = partial(self.submit, lambda: self.rollout.expired(version))
        self._expiry = asyncio.get_running_loop().call_later(self._config.offer_seconds, expire)

    # The load that workers report.

    @property
    def step(self) -> int:
        """The last step that all workers have reported that have to; -1 if there is none.

        The load of some of the workers is not that of the group.
        """
        if self.spec.scope == "global":
            return self.loads.step
        workers = self.sessions.workers
        return min((self.loads.last_step_of(each) for each in workers), default=-1)

    @property
    def missing_report(self) -> str | None:
        """Which worker has not reported, although others have; None if there is none.

        An engine may have forgotten to report for one of its ranks.
        """
        workers = sorted(self.sessions.workers)
        if self.step >= 0 or not workers or self.loads.step < 0:
            return None
        silent = next(each for each in workers if self.loads.last_step_of(each) < 0)
        return f"{silent!r} has reported no load yet, and others have"

    def _reporting_group(self) -> ReportingGroup:
        workers, scope = self.sessions.workers, self.spec.scope
        # In scope "global", each worker counts for the whole group, so one of them is enough.
        awaited = workers & self.loads.workers if scope == "global" else workers
        return ReportingGroup(awaited, apart=scope == "source")

    async def save_counters(self) -> None:
        """Save what the workers have counted, if they have reported since the last time.

        Raises:
            StoreError: the counters were not saved; the next call tries again.
        """
        unsaved = self.loads.unsaved()
        # Without a complete group, there has never been anything to go on from.
        if unsaved is None or self.is_deleted:
            return
        if self.rollout.record.epoch is not None:
            await self.store.save_counters(unsaved)
            self.loads.mark_saved(unsaved)

    async def save_usage(self, periods: UsagePeriods) -> None:
        """Store until when the deployment counts as used, if the store has to be told.

        Raises:
            StoreError: it was not stored; the next call tries again.
        """
        stored = self.store.definition.used_until
        used_until = periods.to_store(stored, self.unused_seconds, time.time())
        if used_until is not None:
            with suppress(NotFoundError):
                await self.run_exclusive(partial(self._save_usage, used_until))

    async def _save_usage(self, used_until: float) -> None:
        definition = replace(self.store.definition, used_until=used_until)
        # What never had a complete group, and what no operator has changed, is not stored.
        if self.store.has_definition:
            await self.store.save_definition(definition)
        self.store.definition = definition
