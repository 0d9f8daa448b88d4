"""What the server tells about its work: to its metrics and to its history."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from trimtab_protocol.history import Event, Reported
from trimtab_protocol.version import Version
from trimtab_server.engine.departure import Departure
from trimtab_server.engine.status import Status
from trimtab_server.policy.decide import Decision
from trimtab_server.policy.trust import Judgement
from trimtab_server.rollout.effects import Cause

Rejection = Literal["full", "deadline", "cancelled"]
When = Literal["before", "after"]

ReportResult = Literal["accepted", "gap", "repeated", "refused"]
"""How a load report was handled. `gap`: its tokens cannot be assigned to a time."""

Outcome = Literal["offered", "committed", "applied", "aborted"]


class RolloutSummary(NamedTuple):
    """The state of a deployment's rollout.

    Attributes:
        sessions: number of open sessions.
        phase: of the switch: "idle", "offered", "committed" or "aborting".
        version: the version that the open switch leads to; None if no switch is open.
        paused: why nothing may be offered; None if offers are allowed.
    """

    sessions: int
    phase: str
    version: Version | None
    paused: str | None


class Observer:
    """Receives events. This one ignores all of them; subclasses handle those they want.

    A call must return at once and must not raise: the work that it is about waits for it.
    Durations are in seconds.
    """

    # The solver. Calls come from the event loop and from the solver's thread.

    def queue_depth(self, waiting: int) -> None:
        """`waiting` jobs now wait for the solver."""

    def queue_waited(self, seconds: float) -> None:
        """A job is about to start after waiting this long."""

    def queue_rejected(self, reason: Rejection) -> None:
        """A job was never started: the queue was full, it was too late, or its caller had gone."""

    def stage(self, stage: str, backend: str, effort: str, seconds: float) -> None:
        """One stage of a solver job took this long on the device."""

    def fallback(self, backend: str, reason: str) -> None:
        """Work meant for `backend` went to the next best: missing, shape, cold or error."""

    def solved(self, iterations: int, swaps: int) -> None:
        """A job took this many refinement steps and swaps, over all its rows."""

    def imbalance(self, when: When, worst: float, median: float) -> None:
        """Worst and median over the layers of a load, with the old or new placement."""

    def imbalance_bound(self, worst: float, median: float) -> None:
        """Worst and median over the layers of the lower bound on any placement's imbalance."""

    def moves_planned(self, moves: int) -> None:
        """A placement was answered that needs this many moves."""

    # Calls, by full names of methods, such as "trimtab.v1.SolverService/Place". All that
    # follows is called on the event loop.

    def call_started(self, method: str) -> None:
        """A call of `method` began."""

    def load_answered(self, code: str) -> None:
        """A load of a PlaceStream was answered: "OK", or the code of its error."""

    def call_ended(self, method: str, code: str, seconds: float) -> None:
        """A call ended with this status code, such as "OK", after this long."""

    # Deployments.

    def term_started(self, term: int) -> None:
        """The server has opened its store, in this term."""

    def history_note(self, event: Event) -> None:
        """Something happened that belongs in a deployment's history."""

    def rollout_changed(self, deployment: str, summary: RolloutSummary) -> None:
        """The deployment's rollout or its sessions have changed, or the deployment is new."""

    def deployment_closed(self, deployment: str) -> None:
        """The server has dropped the deployment."""

    def switch_progressed(self, deployment: str, outcome: Outcome) -> None:
        """A switch was offered, committed, applied or aborted."""

    def switch_aborted(self, deployment: str, cause: Cause) -> None:
        """Why a switch was aborted: told in addition to `switch_progressed`."""

    def worker_joined(self, deployment: str, worker: str, absent: int | None) -> None:
        """A worker's session has begun. `absent`: workers of the group that now have none.

        `absent` is None before the first complete group.
        """

    def worker_left(
        self, deployment: str, worker: str, departure: Departure, absent: int | None
    ) -> None:
        """A worker's session has ended. `absent`: see `worker_joined`."""

    def session_refused(self, deployment: str, worker: str, reason: str, times: int) -> None:
        """A worker was refused a session, for the `times`-th time.

        The names are empty if the worker had not said them yet.
        """

    def message_received(self, kind: str) -> None:
        """A worker's message was read: "hello", "report", … or "none" if its kind is unknown."""

    def message_delayed(self, deployment: str) -> None:
        """A worker's next message is read later, because the worker sends too many."""

    def report_handled(
        self, deployment: str, result: ReportResult, reported: Reported | None
    ) -> None:
        """A worker's load report was counted or not; `reported`: what it added, if it was."""

    def decision_made(
        self, deployment: str, decision: Decision, seconds: float, judged: Judgement | None
    ) -> None:
        """It was decided, in `seconds`, whether experts move; `judged`: an earlier switch."""

    def status_refreshed(self, deployment: str, status: Status) -> None:
        """The deployment's current status, told each time that reports are due."""

    def placement_applied(self, deployment: str, moves: int, moved_bytes: int) -> None:
        """A switch was applied, with this many net moves and bytes of weights."""

    def answer_ignored(self, deployment: str) -> None:
        """A worker sent an answer that the server was not waiting for."""

    def alarm(self, deployment: str, reason: str, *, mismatch: bool) -> None:
        """An operator should look. `mismatch`: workers serve with an unexpected placement."""

    def store_failed(self) -> None:
        """An operation of the store failed."""

    def store_health_changed(self, failure: str | None) -> None:
        """The store began to fail, for this reason, or works again: None."""


class Observers(Observer):
    """Passes each event on to several observers, in order."""

    def __init__(self, *observers: Observer) -> None:
        def passed_on(event: str) -> Callable[..., None]:
            def tell(*args: Any, **named: Any) -> None:
                for observer in observers:
                    getattr(observer, event)(*args, **named)

            return tell

        for event in vars(Observer):
            if not event.startswith("_"):
                setattr(self, event, passed_on(event))
