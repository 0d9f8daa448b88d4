"""One deployment: what it is and does, for its workers, its operators and the server.

Lives on the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab_protocol.history import Other
from trimtab_protocol.messages import Answer, Report, Transfers
from trimtab_protocol.placement import Placement
from trimtab_protocol.version import Version
from trimtab_server.domain.errors import FailedPreconditionError, UnavailableError
from trimtab_server.domain.placement import count_moves
from trimtab_server.engine.arrival import Arrival, Facts
from trimtab_server.engine.backoff import Backoff
from trimtab_server.engine.balancer import Verdict, View
from trimtab_server.engine.connections import Connection, Connections
from trimtab_server.engine.decision_log import DecisionLog
from trimtab_server.engine.inspection import inspect
from trimtab_server.engine.mailbox import Mailbox
from trimtab_server.engine.outlook import Lookout
from trimtab_server.engine.planner import Planner
from trimtab_server.engine.spec import Spec
from trimtab_server.engine.status import Status
from trimtab_server.engine.steering import Steering
from trimtab_server.engine.store_thread import StoreThread
from trimtab_server.engine.switching import RETRY_AFTER_S, Event, Switching
from trimtab_server.engine.tallies import Group, Tallies
from trimtab_server.engine.teller import Teller
from trimtab_server.policy.decide import Decision
from trimtab_server.policy.policy import Mode, Policy
from trimtab_server.rollout.differences import Differences
from trimtab_server.rollout.effects import Close, Effect, GroupOffer
from trimtab_server.rollout.record import Record
from trimtab_server.rollout.rollout import Rollout
from trimtab_server.store.errors import StoreError

_FLUSH_S = 1.0
"""For what a draining server still says: a worker that does not read must not hold it up."""


class Deployment:
    """One deployment: made by its first session or an operator, or found in the store.

    Args:
        spec: what it is, and what its operators want.
        record: what is durable of its switches.
        store: where that is.
        teller: told of what happens.
        offer_seconds: time in which workers have to prepare an offer.
        planner: plans where experts are to be; None: nothing is decided here.
        stored: whether the store has the spec.
    """

    def __init__(
        self,
        spec: Spec,
        record: Record,
        store: StoreThread,
        teller: Teller,
        offer_seconds: float,
        planner: Planner | None = None,
        *,
        stored: bool = False,
    ) -> None:
        facts, policy = spec.facts, spec.policy
        self._spec = spec
        self._stored: Spec | None = spec if stored else None
        self._store = store
        self._teller = teller
        self._connections = Connections()
        self._let_in: set[int] = set()
        self._switching = Switching(
            facts.topology.num_gpus,
            record,
            store,
            self._connections,
            teller,
            offer_seconds,
            self._save_spec,
            self._moved,
        )
        shape = facts.num_layers, facts.num_experts
        self._tallies = Tallies(*shape, policy.smoothing, teller, self._counting)
        self._changes: tuple[Version, Differences] | None = None
        self._steering = Steering(facts, policy, planner, teller)
        self._lookout = Lookout(self._tallies)
        self._unsure = False
        self._steered: Placement | None = None
        self._began = asyncio.get_running_loop().time()
        self._backoff = Backoff()

    @property
    def facts(self) -> Facts:
        """What its workers agree on."""
        return self._spec.facts

    @property
    def policy(self) -> Policy:
        """What its operators want."""
        return self._spec.policy

    @property
    def durable(self) -> Record:
        """What of its rollout the store has."""
        return self._switching.durable

    @property
    def decisions(self) -> DecisionLog:
        """The last ones."""
        return self._steering.decisions

    @property
    def status(self) -> Status:
        """How it is now."""
        return inspect(
            self.rollout,
            self._connections,
            self._tallies,
            self._steering,
            self._lookout.outlook,
            self._switching.in_force_since,
            self._began,
        )

    @property
    def forgotten(self) -> bool:
        """Whether it has ended: there is none of its name, or another one."""
        return self._switching.closed

    @property
    def name(self) -> str:
        """What the workers call it."""
        return self._teller.deployment

    @property
    def target(self) -> Placement | None:
        """A placement that is on its way, in as many switches as it takes."""
        return self._switching.target

    @property
    def connections(self) -> tuple[Connection, ...]:
        """Those that have not ended."""
        return tuple(self._connections)

    @property
    def rollout(self) -> Rollout:
        """The state machine, to look at."""
        return self._switching.rollout

    @property
    def unused(self) -> bool:
        """Whether it has no session, and nothing of it is stored."""
        return not self._connections and self._stored is None

    async def start(self) -> None:
        """Call this once, before all else.

        Raises:
            StoreError: the baselines of its counters cannot be had.
        """
        self._tallies.restore(await self._store.call(self._store.store.load_counters, self.name))
        await self._switching.start()

    async def save_counters(self) -> None:
        """Make the baselines durable, if reports have come since the last time.

        Raises:
            StoreError: they could not be; they are tried again the next time.
        """
        unsaved = self._tallies.unsaved()
        # Who has never had a complete group leaves nothing behind.
        if unsaved is None or self.forgotten:
            return
        if self.rollout.record.epoch is not None:
            await self._store.call(self._store.store.save_counters, self.name, unsaved.baselines)
            self._tallies.saved(unsaved)

    async def join(self, number: int, arrival: Arrival) -> Connection:
        """Begin a session; where this is cancelled or fails, it has ended too.

        Raises:
            FailedPreconditionError: the worker is not of this deployment or its group.
            SessionClosedError: it cannot join now.
            UnavailableError: the store failed.
        """
        session = Connection(number, arrival, Mailbox())
        self._connections.add(session)
        try:
            await self._switching.happen(self._kept(lambda: self._joined(session)))
            session.mailbox.check()
        except BaseException:
            self.leave(session)
            raise
        return session

    def _joined(self, session: Connection) -> list[Effect]:
        """A worker that is let in joins; the first one says how their engine counts."""
        number, arrival = session.number, session.arrival
        facts = self.facts if self._let_in else self.facts.adopting(arrival.facts)
        facts.require(arrival.facts, self.name)
        effects = self.rollout.joined(number, arrival.hello)
        refused = any(isinstance(each, Close) and each.session == number for each in effects)
        if not refused:
            self._let_in.add(number)
            self._adopt(replace(self._spec, facts=facts))
        return effects

    def leave(self, session: Connection) -> None:
        """End a session. Returns at once, so that a cancelled call can say it too."""
        self._let_in.discard(session.number)
        if self._connections.end(session.number):
            self._switching.begin(self._kept(lambda: self.rollout.left(session.number)))

    async def answer(self, session: Connection, answer: Answer) -> None:
        """A worker answered."""
        await self._switching.happen(lambda: self.rollout.answered(session.number, answer))

    def report(self, session: Connection, report: Report) -> int:
        """A worker reported its counts; returns the number to acknowledge.

        Raises:
            InvalidArgumentError: see `Counters.take`.
            SessionClosedError: a newer incarnation of the worker has reported.
        """
        taken = self._tallies.take(session.arrival.hello, report)
        if report.discard:
            self._steering.forget()
        return taken

    def load(self) -> npt.NDArray[np.float64]:
        """Tokens of each expert a step, as all workers have reported, float64 [L, E]."""
        return self._tallies.load()

    async def move_to(self, target: Placement, order: Sequence[int] = ()) -> None:
        """Switch to a placement, in pieces that the workers have room for.

        Returns once the first piece is offered; the others follow. An abort gives the target up.

        Args:
            target: where to go.
            order: layers, the most urgent first.

        Raises:
            FailedPreconditionError: nothing can be offered now, or it is pinned.
        """
        await self._switching.go_to(target, order, self._why_pinned)

    def _why_pinned(self) -> str | None:
        pinned = self.rollout.record.pinned
        if pinned is None:
            return None
        return f"the deployment is pinned to {pinned.digest.hex()[:12]}: unpin it first"

    async def steer(self) -> Decision | None:
        """See how balanced it is, and go where its pin or its policy says.

        Returns:
            What was decided; None: nothing, since it is pinned or its policy is off.

        Raises:
            ResourceExhaustedError: the solver has too much to do, or this is too large for it.
            UnavailableError: the store failed, or the solver is about to end.
        """
        record = self.rollout.record
        self._backoff.look(record, asyncio.get_running_loop().time())
        if record.pinned is not None:
            self._look()
            await self._go_to_pin()
            return None
        now, tallies = asyncio.get_running_loop().time(), self._tallies
        not_ready = self.rollout.why_not() or self._backoff.why_not(now) or self._why_unknown()
        view = View(
            now,
            self._step,
            tallies.steps,
            not_ready,
            tallies.known,
            tallies.counted,
            record.placement,
        )
        self._look()
        verdict = await self._steering.decide(view)
        if verdict is None:
            return None
        if verdict.target is not None:
            await self._go_by_itself(verdict, record.placement)
        return verdict.decision

    def _why_unknown(self) -> str | None:
        """Who keeps the load from being known: an engine may have forgotten one of its ranks."""
        workers = sorted(self._connections.workers)
        if self._step >= 0 or not workers or self._tallies.step < 0:
            return None
        silent = next(each for each in workers if self._tallies.last_step_of(each) < 0)
        return f"{silent!r} has reported no load yet, and others have"

    def _counting(self) -> Group:
        workers, scope = self._connections.workers, self.facts.scope
        # Each counts the whole group's, and one is enough.
        awaited = workers & self._tallies.workers if scope == "global" else workers
        return Group(awaited, apart=scope == "source")

    @property
    def _step(self) -> int:
        """The last that all have reported who are to: a load of some of them is not the group's."""
        if self.facts.scope == "global":
            return self._tallies.step
        workers = self._connections.workers
        return min((self._tallies.last_step_of(each) for each in workers), default=-1)

    async def _go_by_itself(self, verdict: Verdict, base: Placement | None) -> None:
        """Carry out a decision, unless something has changed since it was planned upon."""

        def why_not() -> str | None:
            if self.rollout.record.placement is not base:
                return "another placement has come into force"
            if self.policy.mode is not Mode.ACTIVE:
                return f"the deployment is {self.policy.mode.value}"
            return self._why_pinned()

        if verdict.target is None:
            return
        with suppress(FailedPreconditionError):
            self._steered = verdict.target
            await self._switching.go_to(verdict.target, verdict.order, why_not)
            self._steering.switched()
            self._backoff.offered(self.rollout.record)

    def _look(self) -> None:
        """See how balanced it is, and tell how it stands."""
        record, shadow = self.rollout.record, None
        if self.policy.mode is Mode.SHADOW:
            shadow = self._steering.shadow.follow(record.placement)
        if record.placement is not None and record.epoch is not None:
            members = record.epoch.members if self.facts.scope == "local" else {}
            owners = {worker: member.gpus for worker, member in members.items()}
            self._lookout.look(record.placement, shadow, owners)
        self._teller.looked(self.status)

    async def pin(self, placement: Placement | None) -> Placement | None:
        """Stay at a placement, or at none; returns where it was to stay before."""
        before: list[Placement | None] = []

        def pinned() -> list[Effect]:
            before.append(self.rollout.record.pinned)
            # What goes on is what the pin is about, or not: then it does not go on.
            if before[0] is not None or placement is not None:
                self._switching.give_up()
            return self.rollout.pin(placement)

        await self._switching.happen(pinned)
        self._teller.noted(Other("pinned", {"digest": placement.digest if placement else None}))
        self._backoff = Backoff()
        await self._go_to_pin()
        return before[0]

    async def _go_to_pin(self) -> None:
        record = self.rollout.record
        pinned, served = record.pinned, record.placement
        if pinned is None or served is None or pinned.digest == served.digest:
            return
        if self._backoff.why_not(asyncio.get_running_loop().time()) is not None:
            return

        def why_not() -> str | None:
            return None if self.rollout.record.pinned is pinned else "another one is pinned"

        # Nobody is here, or a switch is open: then the next time will do.
        with suppress(FailedPreconditionError):
            await self._switching.go_to(pinned, (), why_not)
            self._backoff.offered(self.rollout.record)

    async def update(self, changed: Callable[[Policy], Policy]) -> None:
        """Have it balanced otherwise, from the next decision on.

        Args:
            changed: makes the new policy of the present one.

        Raises:
            InvalidArgumentError: the new policy cannot be.
            UnavailableError: the store failed: ask again, until it is as asked.
        """

        async def update() -> None:
            policy = changed(self.policy)
            try:
                await self._save_spec(replace(self._spec, policy=policy))
            except StoreError as error:
                self._teller.store_failed(f"the store failed: {error}")
                raise UnavailableError("the server's store failed", RETRY_AFTER_S) from error
            # A worker may have said meanwhile how its engine counts.
            self._adopt(replace(self._spec, policy=policy))
            if policy.mode is not Mode.ACTIVE and self._switching.target is self._steered:
                self._switching.give_up()

        await self._switching.alone(update)

    def _adopt(self, spec: Spec) -> None:
        if spec.policy.smoothing != self.policy.smoothing:
            self._tallies.smooth(spec.policy.smoothing)
        self._spec = spec
        self._steering.adopt(spec.facts, spec.policy)

    async def _save_spec(self, spec: Spec | None = None) -> None:
        spec = spec or self._spec
        if spec != self._stored or self._unsure:
            # Where it fails, nobody knows which one the store has.
            self._unsure = True
            await self._store.call(self._store.store.save_spec, self.name, spec.encode())
            self._stored, self._unsure = spec, False

    def contents(self, offer: GroupOffer, session: Connection) -> Transfers:
        """What an offer asks of a session's worker."""
        if self._changes is None or self._changes[0] != offer.version:
            facts = self.facts
            changes = Differences.between(
                offer.base_placement, offer.placement, facts.topology, facts.bytes_per_expert
            )
            self._changes = offer.version, changes
        return self._changes[1].for_worker(session.arrival.hello.gpus)

    async def forget_load(self) -> None:
        """What workers have reported so far is no traffic.

        Raises:
            UnavailableError: the store failed: ask again, or it may come back with a restart.
        """
        self._tallies.forget_load()
        self._steering.forget()
        self._teller.noted(Other("load_forgotten"))
        try:
            await self.save_counters()
        except StoreError as error:
            self._teller.store_failed(f"the store failed: {error}")
            raise UnavailableError("the server's store failed", RETRY_AFTER_S) from error

    async def pause(self, reason: str) -> str | None:
        """Offer nothing until `resume`; returns what it was paused for before, if it was."""
        before = await self._instead(lambda: self.rollout.pause(reason))
        self._teller.noted(Other("paused", {"reason": reason}))
        return before

    async def resume(self) -> str | None:
        """Allow offers again; returns what it was paused for, if it was."""
        before = await self._instead(lambda: self.rollout.resume())
        self._teller.noted(Other("resumed", {"reason": before or ""}))
        return before

    async def _instead(self, event: Event) -> str | None:
        before: list[str | None] = []

        def happens() -> list[Effect]:
            before.append(self.rollout.record.paused)
            return event()

        await self._switching.happen(happens)
        return before[0]

    async def drain(self) -> None:
        """Offer nothing any more, tell the workers that the server is about to end, and end."""
        await self._switching.begin(lambda: self.rollout.drain())
        for session in self._connections:
            session.mailbox.put("drain", None)
        with suppress(TimeoutError):
            async with asyncio.timeout(_FLUSH_S):
                while self._connections:
                    await self.changed()
        error = UnavailableError("the server is shutting down", RETRY_AFTER_S)
        self._connections.close_all(error)

    def changed(self) -> Coroutine[Any, Any, object]:
        """To be awaited: until something happens to the rollout or to a session from now on."""
        return self._switching.changed()

    def forget(self, forgotten: bool = True) -> None:
        """Nothing is to happen any more, or is after all."""
        self._switching.closed = forgotten

    async def settle(self) -> None:
        """Return once nothing that has begun is still under way."""
        await self._switching.settle()

    async def close(self) -> None:
        """Finish what has begun; nothing happens after that."""
        await self._switching.close()
        self._teller.gone()

    def _kept(self, event: Event) -> Event:
        """The same, and then keep the counts of those who are in the epoch, or here."""

        def happens() -> list[Effect]:
            effects = event()
            self._forget_strangers()
            return effects

        return happens

    def _forget_strangers(self) -> None:
        epoch = self.rollout.record.epoch
        strangers = self._tallies.workers - (set() if epoch is None else epoch.members.keys())
        if strangers:
            self._tallies.forget(strangers - self._connections.workers)

    def _moved(self, was: Placement, now: Placement) -> None:
        moves = count_moves(was, now)
        self._teller.moved(moves, moves * self.facts.bytes_per_expert)
