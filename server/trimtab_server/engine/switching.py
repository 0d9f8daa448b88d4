"""A deployment's rollout as it runs: with its store, its sessions and its clock.

Lives on the event loop. Whatever happens to the rollout happens one at a time and to its
end, also where the call that brought it about is cancelled: what has been made durable
must be followed by what follows from it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from trimtab_protocol.placement import Placement
from trimtab_protocol.version import Version
from trimtab_server.domain.errors import (
    FailedPreconditionError,
    NotFoundError,
    SessionClosedError,
    UnavailableError,
)
from trimtab_server.engine.connections import Connections
from trimtab_server.engine.course import Course
from trimtab_server.engine.store_thread import StoreThread
from trimtab_server.engine.teller import Teller
from trimtab_server.engine.turns import Turns
from trimtab_server.rollout.effects import Alarm, Close, Effect, Expire, Note, Save, Send
from trimtab_server.rollout.record import Record
from trimtab_server.rollout.rollout import Rollout
from trimtab_server.store.errors import StoreError

RETRY_AFTER_S = 1.0

Event = Callable[[], list[Effect]]


class Switching:
    """The rollout of one deployment.

    Args:
        num_gpus: the deployment's.
        record: what is durable.
        store: where that is.
        connections: the sessions.
        teller: told of what happens.
        offer_seconds: time in which workers have to prepare an offer.
        before_saving: awaited before a record is saved.
        moved: told of each placement that comes into force after another one of its epoch.

    Attributes:
        rollout: the state machine, to look at.
        durable: what of its record the store has.
        in_force_since: when what is in force came to be, of the loop's clock; None: before
            the server's start.
        closed: whether nothing may happen any more; whoever asks is told so.
    """

    def __init__(
        self,
        num_gpus: int,
        record: Record,
        store: StoreThread,
        connections: Connections,
        teller: Teller,
        offer_seconds: float,
        before_saving: Callable[[], Awaitable[None]],
        moved: Callable[[Placement, Placement], None],
    ) -> None:
        self.rollout = Rollout(record, num_gpus)
        self.durable = record
        self.in_force_since: float | None = None
        self.closed = False
        self._num_gpus = num_gpus
        self._store = store
        self._connections = connections
        self._teller = teller
        self._offer_seconds = offer_seconds
        self._before_saving = before_saving
        self._moved = moved
        self._course = Course()
        self._turns = Turns()
        self._expiry: asyncio.TimerHandle | None = None
        self._is_ahead = False

    @property
    def target(self) -> Placement | None:
        """A placement that is on its way, in as many switches as it takes."""
        return self._course.target

    async def start(self) -> None:
        """Call this once, before all else: nobody else has it yet."""
        await self._perform(self.rollout.started())
        self._teller.stands(self.rollout, 0)

    async def happen(self, event: Event) -> None:
        """Have something happen to the rollout, with all that follows from it.

        Raises:
            UnavailableError: the store failed.
        """
        await self._turns.finish(self._take_turn(event))

    def begin(self, event: Event) -> asyncio.Task[None]:
        """The same by itself: nobody waits for it, and an alarm says if the store failed."""
        return self._turns.begin(self._take_turn_unasked(event))

    async def alone(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do something else while nothing happens to the rollout."""
        await self._turns.finish(self._take_other_turn(work))

    async def go_to(
        self, target: Placement, order: Sequence[int], why_not: Callable[[], str | None]
    ) -> None:
        """Set out for a placement: see `Course`. Returns once the first piece is offered.

        Args:
            target: where to go.
            order: layers, the most urgent first.
            why_not: asked when nothing else happens any more: what has come in between.

        Raises:
            FailedPreconditionError: nothing can be offered now.
            NotFoundError: it is closed.
            UnavailableError: the store failed.
        """

        def set_out() -> list[Effect]:
            reason = why_not()
            if reason is not None:
                raise FailedPreconditionError(reason)
            return self._course.set_out(target, order, self.rollout, self._connections)

        await self.happen(set_out)

    def give_up(self) -> None:
        """Go no further than the switch that is open."""
        self._course.target = None

    def changed(self) -> Coroutine[Any, Any, object]:
        """To be awaited: until something has happened from now on."""
        return self._turns.changed()

    async def settle(self) -> None:
        """Return once nothing that has begun is still under way."""
        await self._turns.settle()

    async def close(self) -> None:
        """Finish what has begun; whoever waits for a change sees that there will be none."""
        if self._expiry is not None:
            self._expiry.cancel()
        await self.settle()
        self.closed = True
        async with self._turns.turn():
            pass

    # One thing at a time, and to its end.

    async def _take_turn(self, event: Event) -> None:
        async with self._turns.turn():
            self._require_open()
            try:
                if self._is_ahead:
                    await self._go_back()
                before = self.rollout.record
                await self._perform(event())
                self._compare(before, self.rollout.record)
                await self._perform(self._course.go_on(self.rollout, self._connections))
            except StoreError as error:
                self._fail(error)
                raise UnavailableError("the server's store failed", RETRY_AFTER_S) from error
            finally:
                self._teller.stands(self.rollout, len(self._connections))

    async def _take_turn_unasked(self, event: Event) -> None:
        # The alarm has said it; and where there is nothing any more, nothing happens.
        with suppress(UnavailableError, NotFoundError):
            await self._take_turn(event)

    async def _take_other_turn(self, work: Callable[[], Awaitable[None]]) -> None:
        async with self._turns.turn():
            self._require_open()
            await work()

    def _require_open(self) -> None:
        if self.closed:
            raise NotFoundError(f"there is no deployment {self._teller.deployment!r} any more")

    async def _perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Save(record):
                    await self._save(record)
                case Send(number, order):
                    self._connections.send(number, order)
                case Close(number, reason, final):
                    kind = FailedPreconditionError if final else SessionClosedError
                    self._connections.close(number, kind(reason))
                case Expire(version):
                    self._expire_later(version)
                case Alarm(reason, mismatch):
                    self._teller.alarm(reason, mismatch=mismatch)
                case Note(event):
                    self._teller.noted(event)

    async def _save(self, record: Record) -> None:
        await self._before_saving()
        await self._store.call(self._store.store.save, self._teller.deployment, record)
        self.durable = record

    def _compare(self, before: Record, now: Record) -> None:
        """Something else may be in force."""
        if now.in_force == before.in_force or now.placement is None:
            return
        self.in_force_since = asyncio.get_running_loop().time()
        if before.placement is not None and now.epoch == before.epoch:
            self._moved(before.placement, now.placement)

    def _fail(self, error: StoreError) -> None:
        """The rollout may be ahead of what is durable: it must do nothing any more."""
        self._teller.store_failed(f"the store failed: {error}")
        self._is_ahead = True
        self.give_up()
        # Each ends when its own call does, and says so: also one that is only just joining.
        self._connections.close_all(UnavailableError("the server's store failed", RETRY_AFTER_S))

    async def _go_back(self) -> None:
        """Begin again from what is durable."""
        record = await self._store.call(self._store.store.load, self._teller.deployment)
        self.durable = record or Record()
        self.rollout = Rollout(self.durable, self._num_gpus)
        self._is_ahead = False
        await self._perform(self.rollout.started())

    def _expire_later(self, version: Version) -> None:
        # One at a time is open.
        if self._expiry is not None:
            self._expiry.cancel()
        event = partial(self._expired, version)
        self._expiry = asyncio.get_running_loop().call_later(self._offer_seconds, event)

    def _expired(self, version: Version) -> None:
        self.begin(lambda: self.rollout.expired(version))
