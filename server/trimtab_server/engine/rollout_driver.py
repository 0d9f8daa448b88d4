"""Carries out the effects of a deployment's rollout on its store, its sessions and its events.

Lives on the event loop. Calls must not overlap: `DeploymentCore` makes them one at a time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby

from trimtab_protocol.placement import Placement
from trimtab_protocol.version import Version
from trimtab_server.domain.errors import FailedPreconditionError, SessionClosedError
from trimtab_server.engine.deployment_store import DeploymentStore
from trimtab_server.engine.events import DeploymentEvents
from trimtab_server.engine.sessions import Sessions
from trimtab_server.engine.staged_rollout import StagedRollout
from trimtab_server.rollout.effects import Alarm, Close, Effect, Expire, Note, Save, Send
from trimtab_server.rollout.points import Present
from trimtab_server.rollout.record import Record
from trimtab_server.rollout.rollout import Rollout

RolloutChange = Callable[[], list[Effect]]
"""Applies something that has happened to the rollout, and returns its effects."""


@dataclass(frozen=True)
class OfferOpened:
    """An offer is open. It is to expire after a while."""

    version: Version


@dataclass(frozen=True)
class PlacementApplied:
    """A switch was applied: another placement of the same epoch is in force."""

    before: Placement
    after: Placement


DriverEvent = OfferOpened | PlacementApplied


class RolloutDriver:
    """The rollout of one deployment.

    Args:
        record: the record of the rollout that the store has.
        store: of the deployment.
        events: told of notes and alarms.
        max_points: maximum number of placements that it can go back to.

    Attributes:
        rollout: the state machine, to be read.
        staged: the stages that are still to come.
        durable: the record that the store has.
        in_force_since: when the placement in force was applied, on the event loop's clock; None
            if that was before the server's start.
        imbalance: predicted for the placement in force, smoothed, mean over layers; None if it is
            not known. The owner keeps it up to date.
    """

    def __init__(
        self,
        record: Record,
        store: DeploymentStore,
        sessions: Sessions,
        events: DeploymentEvents,
        max_points: int,
    ) -> None:
        self._store = store
        self._sessions = sessions
        self._events = events
        self._is_ahead = False
        self._max_points = max_points
        self.imbalance: float | None = None
        self.rollout = self._rollout_from(record)
        self.staged = StagedRollout()
        self.durable = record
        self.in_force_since: float | None = None

    async def start(self) -> None:
        """Tell the history what the store has. Call this once, before all else."""
        await self._perform(self.rollout.started())

    async def apply(self, change: RolloutChange) -> tuple[Record, list[DriverEvent]]:
        """Apply a change to the rollout, and carry out its effects. Then call `advance`.

        Returns:
            The record before the change, and what the deployment has to do.

        Raises:
            StoreError: call `recover_later`.
        """
        if self._is_ahead:
            await self._restore()
        before = self.rollout.record
        self.rollout.present = Present(time.time(), self.imbalance, self._max_points)
        opened = await self._perform(change())
        return before, [*opened, *self._compare(before, self.rollout.record)]

    async def advance(self) -> list[DriverEvent]:
        """Offer the next stage of the rollout that is under way, if it is time.

        Returns:
            What the deployment has to do.

        Raises:
            StoreError: call `recover_later`.
        """
        return await self._perform(self.staged.advance(self.rollout, self._sessions))

    def recover_later(self, error: Exception) -> None:
        """End all sessions after the store failed. The next change starts from the stored record.

        The rollout may be ahead of what is durable, so nothing may follow from its state.
        """
        self._is_ahead = True
        self.staged.abandon()
        # Each session's own call ends it, also that of a session that is still joining.
        self._sessions.close_all(error)

    async def _restore(self) -> None:
        self.durable = await self._store.load_record()
        self.rollout = self._rollout_from(self.durable)
        self._is_ahead = False
        await self._perform(self.rollout.started())

    def _rollout_from(self, record: Record) -> Rollout:
        return Rollout(record, self._store.definition.spec.topology.num_gpus)

    async def _perform(self, effects: list[Effect]) -> list[DriverEvent]:
        events: list[DriverEvent] = []
        for effect in _notes_before_sends(effects):
            match effect:
                case Save(record):
                    await self._store.save_record(record)
                    self.durable = record
                case Send(number, order):
                    # Workers may write to the same history: their lines must follow these.
                    await self._store.wait_for_history()
                    self._sessions.send(number, order)
                case Close(number, reason, final):
                    kind = FailedPreconditionError if final else SessionClosedError
                    self._sessions.close(number, kind(reason))
                case Expire(version):
                    events.append(OfferOpened(version))
                case Alarm(reason, mismatch):
                    self._events.alarm(reason, mismatch=mismatch)
                case Note(event):
                    self._events.note(event)
        return events

    def _compare(self, before: Record, now: Record) -> list[DriverEvent]:
        """See whether another placement is in force, and whether a switch led to it."""
        if now.in_force == before.in_force or now.placement is None:
            return []
        self.in_force_since, self.imbalance = asyncio.get_running_loop().time(), None
        if before.placement is None or now.epoch != before.epoch:
            return []
        return [PlacementApplied(before.placement, now.placement)]


def _notes_before_sends(effects: list[Effect]) -> list[Effect]:
    """Effects in their order, but the notes of a run of notes and sends come before its sends.

    A send waits until the history has all notes so far: like this, one wait serves a whole run.
    """
    ordered: list[Effect] = []
    for is_run, group in groupby(effects, lambda effect: isinstance(effect, Note | Send)):
        run = list(group)
        if is_run:
            run.sort(key=lambda effect: isinstance(effect, Send))
        ordered += run
    return ordered
