"""What workers do with a deployment: they join, report, answer offers and leave."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace

from trimtab_protocol.messages import Answer, Report, Transfers
from trimtab_protocol.version import Version
from trimtab_server.domain.errors import UnavailableError
from trimtab_server.engine.automation import Automation
from trimtab_server.engine.departure import Departure
from trimtab_server.engine.deployment_core import DeploymentCore
from trimtab_server.engine.events import RETRY_AFTER_S
from trimtab_server.engine.join_request import JoinRequest
from trimtab_server.engine.outbox import Outbox
from trimtab_server.engine.sessions import WorkerSession
from trimtab_server.rollout.differences import Differences
from trimtab_server.rollout.effects import Close, Effect, GroupOffer

_FLUSH_S = 1.0
"""Time for the last messages of a server that stops. A worker that does not read them must not
delay the stop further."""


class WorkerSide:
    """A deployment as its workers use it."""

    def __init__(self, core: DeploymentCore, automation: Automation) -> None:
        self._core = core
        self._automation = automation
        self._admitted: set[int] = set()
        self._differences: tuple[Version, Differences] | None = None

    async def join(
        self, number: int, request: JoinRequest, outbox: Outbox | None = None
    ) -> WorkerSession:
        """Begin a session. If this is cancelled or fails, the session has ended too.

        Args:
            number: identifies the session in this server process.
            request: what the worker says about itself and its deployment.
            outbox: for what is said to the worker; None for a new one.

        Raises:
            FailedPreconditionError: the worker does not belong to the deployment or its group.
            SessionClosedError: the worker cannot join now.
            UnavailableError: the store failed.
        """
        core = self._core
        session = WorkerSession(number, request, outbox or Outbox())
        core.sessions.add(session)
        try:
            await core.apply(lambda: self._joined(session))
            session.outbox.raise_if_closed()
        except BaseException:
            self.leave(session)
            raise
        if not core.spec.by_engine:
            core.events.worker_joined(session.request.hello.worker, core.absent)
        return session

    def leave(self, session: WorkerSession, departure: Departure | None = None) -> None:
        """End a session. Returns at once, so that a cancelled call can still do it.

        Args:
            session: the session.
            departure: why it ends, which the log tells; None if there is nothing to tell.
        """
        core = self._core
        if session.number in self._admitted and not core.spec.by_engine:
            core.usage.touch()
        self._admitted.discard(session.number)
        if core.sessions.remove(session.number):
            core.submit(lambda: self._left(session))
            if departure is not None:
                core.events.worker_left(session.request.hello.worker, departure, core.absent)

    async def answer(self, session: WorkerSession, answer: Answer) -> None:
        """Take a worker's answer to an offer or a commit.

        Raises:
            UnavailableError: the store failed.
        """
        await self._core.apply(lambda: self._core.rollout.answered(session.number, answer))

    def report(self, session: WorkerSession, report: Report) -> int:
        """Count a worker's load report; returns the number to acknowledge.

        Raises:
            InvalidArgumentError: see `Counters.take`.
            SessionClosedError: a newer incarnation of the worker has reported.
        """
        acknowledged = self._core.loads.add_report(session.request.hello, report)
        if report.discard:
            self._automation.reset()
        return acknowledged

    def contents(self, offer: GroupOffer, session: WorkerSession) -> Transfers:
        """What an offer asks of a session's worker."""
        if self._differences is None or self._differences[0] != offer.version:
            spec = self._core.spec
            differences = Differences.between(
                offer.base_placement, offer.placement, spec.topology, spec.bytes_per_expert
            )
            self._differences = offer.version, differences
        return self._differences[1].for_worker(session.request.hello.gpus)

    async def drain(self) -> None:
        """Offer nothing any more, tell all workers that the server stops, and end their sessions.

        Returns once all sessions have ended, but after a second at most.
        """
        core = self._core
        await core.submit(lambda: core.rollout.drain())
        for session in core.sessions:
            session.outbox.put("drain", None)
        with suppress(TimeoutError):
            async with asyncio.timeout(_FLUSH_S):
                while core.sessions:
                    await core.changed()
        core.sessions.close_all(UnavailableError("the server is shutting down", RETRY_AFTER_S))

    def _joined(self, session: WorkerSession) -> list[Effect]:
        """A worker joins. The first one that is admitted says how their engine counts."""
        core, number, request = self._core, session.number, session.request
        spec = core.spec if self._admitted else core.spec.updated_from(request.spec)
        spec.require_agreement(request.spec, core.name)
        effects = core.rollout.joined(number, request.hello)
        refused = any(isinstance(each, Close) and each.session == number for each in effects)
        if not refused:
            self._admitted.add(number)
            self._automation.adopt(replace(core.store.definition, spec=spec))
        self._drop_strangers()
        return effects

    def _left(self, session: WorkerSession) -> list[Effect]:
        effects = self._core.rollout.left(session.number)
        self._drop_strangers()
        return effects

    def _drop_strangers(self) -> None:
        """Drop the counts of workers that are gone for good."""
        core, epoch = self._core, self._core.rollout.record.epoch
        strangers = core.loads.workers - (set() if epoch is None else epoch.members.keys())
        if strangers:
            core.loads.remove(strangers - core.sessions.workers)
