"""A deployment as it runs: the rollout with its store, its sessions and its clock.

Lives on the event loop. Whatever happens to the rollout happens one at a time and to its
end, also where the call that brought it about is cancelled: what has been made durable
must be followed by what follows from it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab_server.domain.errors import (
    FailedPreconditionError,
    SessionClosedError,
    UnavailableError,
)
from trimtab_server.domain.placement import Placement
from trimtab_server.domain.version import Version
from trimtab_server.engine.arrival import Arrival, Facts
from trimtab_server.engine.baselines import baseline_of, restored
from trimtab_server.engine.mailbox import Mailbox
from trimtab_server.engine.store_thread import StoreThread
from trimtab_server.engine.switch_observer import SwitchObserver
from trimtab_server.loads.counters import Counters, Report
from trimtab_server.rollout.contents import Contents, Differences
from trimtab_server.rollout.cutting import Limits, next_piece
from trimtab_server.rollout.effects import Alarm, Close, Effect, Expire, Note, Save, Send
from trimtab_server.rollout.messages import Answer, Offer, Order, Welcome
from trimtab_server.rollout.record import Record
from trimtab_server.rollout.rollout import Phase, Rollout
from trimtab_server.store.errors import StoreError

_RETRY_AFTER_S = 1.0


@dataclass(frozen=True)
class Connection:
    """One stream, as the deployment sees it.

    Attributes:
        number: of the session, never given out again while the server runs.
        arrival: what it began with.
        mailbox: what is to be sent on it.
        counters: of the worker's incarnation.
    """

    number: int
    arrival: Arrival
    mailbox: Mailbox
    counters: Counters


class Deployment:
    """One deployment, from its first session on.

    Attributes:
        facts: what its workers agree on.
        target: a placement that is on its way, in as many switches as it takes.
    """

    def __init__(
        self,
        name: str,
        facts: Facts,
        record: Record,
        store: StoreThread,
        observer: SwitchObserver,
        offer_seconds: float,
    ) -> None:
        self.facts = facts
        self.target: Placement | None = None
        self._name = name
        self._store = store
        self._observer = observer
        self._offer_seconds = offer_seconds
        self._rollout = Rollout(record, facts.topology.num_gpus)
        self._connections: dict[int, Connection] = {}
        self._counters: dict[str, Counters] = {}
        self._changes: tuple[Version, Differences] | None = None
        self._saved_seqs: dict[str, int] = {}
        self._is_ahead = False
        self._changed = asyncio.Event()
        self._turn = asyncio.Lock()
        self._running: set[asyncio.Task[Any]] = set()

    @property
    def connections(self) -> tuple[Connection, ...]:
        """Those that have not ended."""
        return tuple(self._connections.values())

    @property
    def rollout(self) -> Rollout:
        """The state machine, to look at."""
        return self._rollout

    async def start(self) -> None:
        """Call this once, before all else.

        Raises:
            StoreError: the baselines of its counters cannot be had.
        """
        saved = await self._store.call(self._store.store.load_counters, self._name)
        for worker, baseline in saved.items():
            self._count_from(worker, restored(baseline))
        await self._happen(lambda: self._rollout.started())

    async def save_counters(self) -> None:
        """Make the baselines durable, if reports have come since the last time.

        Raises:
            StoreError: they could not be; they are tried again the next time.
        """
        seqs = {worker: counters.seq for worker, counters in self._counters.items()}
        if seqs != self._saved_seqs:
            saved = {worker: baseline_of(each) for worker, each in self._counters.items()}
            await self._store.call(self._store.store.save_counters, self._name, saved)
            self._saved_seqs = seqs

    async def join(self, number: int, arrival: Arrival) -> Connection:
        """Begin a session.

        Raises:
            FailedPreconditionError: the worker is not of this deployment.
        """
        differences = self.facts.differences(arrival.facts)
        if differences:
            raise FailedPreconditionError(
                f"deployment {self._name!r} differs in {'; '.join(differences)}"
            )
        session = Connection(number, arrival, Mailbox(), self._counters_of(arrival))
        self._connections[number] = session
        await self._happen(lambda: self._rollout.joined(number, arrival.hello))
        return session

    def leave(self, session: Connection) -> None:
        """End a session. Returns at once, so that a cancelled call can say it too."""
        if self._connections.pop(session.number, None) is not None:
            self._begin(self._take_turn_unasked(lambda: self._rollout.left(session.number)))

    async def answer(self, session: Connection, answer: Answer) -> None:
        """A worker answered."""
        await self._happen(lambda: self._rollout.answered(session.number, answer))

    def report(self, session: Connection, report: Report) -> int:
        """A worker reported its counts; returns the number to acknowledge.

        Raises:
            InvalidArgumentError: see `Counters.take`.
        """
        counted = session.counters.take(report)
        if counted is not None:
            hello = session.arrival.hello
            self._observer.reported(
                self._name, hello.worker, hello.incarnation, report.seq, counted
            )
        return session.counters.seq

    def load(self) -> npt.NDArray[np.float64]:
        """Tokens of each expert that all workers have reported, float64 [L, E]."""
        total_LE = np.zeros((self.facts.num_layers, self.facts.num_experts))
        for counters in self._counters.values():
            total_LE += counters.load_LE
        return total_LE

    async def move_to(self, target: Placement) -> None:
        """Switch to a placement, in pieces that the workers have room for.

        Returns once the first piece is offered; the others follow. An abort gives the target up.

        Raises:
            FailedPreconditionError: nothing can be offered now.
        """
        await self._shielded(self._take_turn(lambda: self._offer(target)))

    def contents(self, offer: Offer, session: Connection) -> Contents:
        """What an offer asks of a session's worker."""
        if self._changes is None or self._changes[0] != offer.version:
            facts = self.facts
            changes = Differences.between(
                offer.base_placement, offer.placement, facts.topology, facts.bytes_per_expert
            )
            self._changes = offer.version, changes
        return self._changes[1].for_worker(session.arrival.hello.gpus)

    async def pause(self, reason: str) -> None:
        """Offer nothing until `resume`."""
        await self._happen(lambda: self._rollout.pause(reason))

    async def resume(self) -> None:
        """Allow offers again."""
        await self._happen(lambda: self._rollout.resume())

    async def drain(self, seconds: float) -> None:
        """Offer nothing any more, and tell the workers that the server is about to end."""
        await self._happen(lambda: self._rollout.drain())
        for session in self._connections.values():
            session.mailbox.put("drain", seconds)

    async def changed(self) -> None:
        """Return once something has happened to the rollout or to a session."""
        changed = self._changed
        await changed.wait()

    async def settle(self) -> None:
        """Return once nothing that has begun is still under way."""
        while self._running:
            await asyncio.wait(self._running)

    # One thing at a time, and to its end.

    async def _happen(self, event: Callable[[], list[Effect]]) -> None:
        await self._shielded(self._take_turn(event))

    async def _shielded(self, work: Coroutine[Any, Any, None]) -> None:
        await asyncio.shield(self._begin(work))

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def _take_turn(self, event: Callable[[], list[Effect]]) -> None:
        async with self._turn:
            try:
                if self._is_ahead:
                    await self._go_back()
                await self._perform(event())
                await self._perform(self._go_on())
            except StoreError as error:
                self._fail(error)
                raise UnavailableError("the server's store failed", _RETRY_AFTER_S) from error
            finally:
                # A new one for those who wait from now on.
                self._changed.set()
                self._changed = asyncio.Event()

    async def _take_turn_unasked(self, event: Callable[[], list[Effect]]) -> None:
        with suppress(UnavailableError):  # the alarm has said it
            await self._take_turn(event)

    async def _perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case Save(record):
                    await self._store.call(self._store.store.save, self._name, record)
                case Send(number, order):
                    self._send(number, order)
                case Close(number, reason, final):
                    kind = FailedPreconditionError if final else SessionClosedError
                    self._close(number, kind(reason))
                case Expire(version):
                    self._expire_later(version)
                case Alarm(reason):
                    self._observer.alarm(self._name, reason)
                case Note():
                    self._observer.noted(self._name, effect)

    def _fail(self, error: StoreError) -> None:
        """The rollout may be ahead of what is durable: it must do nothing any more."""
        self._observer.alarm(self._name, f"the store failed: {error}")
        self._is_ahead = True
        self.target = None
        for number in list(self._connections):
            self._close(number, UnavailableError("the server's store failed", _RETRY_AFTER_S))
            del self._connections[number]

    async def _go_back(self) -> None:
        """Begin again from what is durable."""
        record = await self._store.call(self._store.store.load, self._name)
        self._rollout = Rollout(record or Record(), self.facts.topology.num_gpus)
        self._is_ahead = False
        await self._perform(self._rollout.started())

    def _send(self, number: int, order: Order) -> None:
        session = self._connections.get(number)
        if session is not None:
            kind = "welcome" if isinstance(order, Welcome) else "switch"
            session.mailbox.put(kind, order)

    def _close(self, number: int, error: BaseException) -> None:
        session = self._connections.get(number)
        if session is not None:
            session.mailbox.close(error)

    def _expire_later(self, version: Version) -> None:
        event = partial(self._expired, version)
        asyncio.get_running_loop().call_later(self._offer_seconds, event)

    def _expired(self, version: Version) -> None:
        self._begin(self._take_turn_unasked(lambda: self._rollout.expired(version)))

    # The way to the target.

    def _offer(self, target: Placement) -> list[Effect]:
        reason = self._rollout.why_not()
        if reason is not None:
            raise FailedPreconditionError(reason)
        _, served = self._rollout.record.served
        piece = next_piece(served, target, self._limits())
        if piece is None:
            return []
        self.target = target
        return self._rollout.propose(piece)

    def _go_on(self) -> list[Effect]:
        """Offer the next piece on the way to the target, once the one before is in force."""
        target, phase = self.target, self._rollout.phase
        if target is None or phase in (Phase.OFFERED, Phase.COMMITTED):
            return []
        self.target = None
        if phase is Phase.ABORTING:
            return []
        try:
            return self._offer(target)
        except FailedPreconditionError as error:
            self._observer.alarm(self._name, f"stopped half-way to a placement: {error}")
            return []

    def _limits(self) -> Limits:
        """Those of the worker that has least room."""
        arrivals = [session.arrival for session in self._connections.values()]
        layers = [arrival.max_layers for arrival in arrivals if arrival.max_layers]
        return Limits(min(a.staging_slots for a in arrivals), min(layers, default=0))

    def _counters_of(self, arrival: Arrival) -> Counters:
        hello, facts = arrival.hello, self.facts
        counters = self._counters.get(hello.worker)
        if counters is None or counters.incarnation < hello.incarnation:
            counters = Counters(hello.incarnation, facts.num_layers, facts.num_experts)
            self._count_from(hello.worker, counters)
        return counters

    def _count_from(self, worker: str, counters: Counters) -> None:
        """Count a worker's reports from a baseline on; the history says from which."""
        self._counters[worker] = counters
        who = {"worker": worker, "incarnation": counters.incarnation}
        note = Note("restored", {**who, "counts": int(counters.counts_LE.sum())})
        self._observer.noted(self._name, note)
