"""The events of one deployment: tells the observer about them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from trimtab_protocol import history
from trimtab_protocol.placement import Placement
from trimtab_server.domain.errors import UnavailableError
from trimtab_server.engine.decision_log import LoggedDecision
from trimtab_server.engine.departure import Departure
from trimtab_server.engine.observer import Observer, Outcome, ReportResult, RolloutSummary
from trimtab_server.rollout.effects import Cause
from trimtab_server.rollout.rollout import Rollout
from trimtab_server.store.errors import StoreError

RETRY_AFTER_S = 1.0
"""What callers are told to wait while the server cannot serve them."""

_OUTCOMES: Mapping[type[history.Event], Outcome] = {
    history.Offered: "offered",
    history.Committed: "committed",
    history.Applied: "applied",
}


class DeploymentEvents:
    """Reports what happens in one deployment.

    Attributes:
        observer: for events that need no more than the deployment's name.
    """

    def __init__(self, deployment: str, observer: Observer) -> None:
        self.deployment = deployment
        self._history = observer
        self.observer = observer

    def rollout_changed(self, rollout: Rollout, sessions: int) -> None:
        """The rollout or the sessions have changed."""
        record = rollout.record
        version = None if record.switch is None else record.switch.version
        summary = RolloutSummary(sessions, rollout.phase.value, version, record.paused)
        self.observer.rollout_changed(self.deployment, summary)

    def close(self) -> None:
        """The server drops the deployment. From now on, only notes are passed on."""
        self.observer.deployment_closed(self.deployment)
        # Other events would bring back the metrics of a deployment that no longer exists.
        self.observer = Observer()

    def note(self, event: history.Event) -> None:
        """Write an event to the history, and report what it stands for."""
        self._history.history_note(replace(event, deployment=self.deployment))
        match event:
            case history.Again(history.Offered()):
                # An offer that was not committed when the server ended is aborted.
                self._aborted(Cause.RESTART)
            case history.Aborting():
                self._aborted(Cause(event.cause))
            case history.Other("ignored"):
                self.observer.answer_ignored(self.deployment)
            case _ if type(event) in _OUTCOMES:
                self.observer.switch_progressed(self.deployment, _OUTCOMES[type(event)])

    def report_handled(
        self, result: ReportResult, reported: history.Reported | None = None
    ) -> None:
        """A worker's load report was counted or not."""
        self.observer.report_handled(self.deployment, result, reported)

    def decided(self, logged: LoggedDecision, *, is_new: bool) -> None:
        """It was decided whether experts move. `is_new`: the decision before was another one."""
        decision, candidate = logged.decision, logged.decision.candidate
        self.observer.decision_made(self.deployment, decision, logged.seconds, logged.judged)
        if is_new:
            certainty, judged = decision.certainty, logged.judged
            values = {
                "reason": decision.reason.value,
                "mode": logged.mode.value,
                "step": logged.step,
                "before": candidate and candidate.before,
                "after": candidate and candidate.after,
                "moves": candidate and candidate.moves,
                "certainty": certainty and vars(certainty),
                "judged": judged and vars(judged),
            }
            self.note(history.Other("decided", values))

    def shadow_moved(self, placement: Placement, moves: int, step: int) -> None:
        """Another placement would be in force after this step if shadow mode moved experts."""
        values = {"step": step, "moves": moves, "placement": placement}
        self.note(history.Other("shadow", values))

    def worker_joined(self, worker: str, absent: int | None) -> None:
        """A worker's session has begun. `absent`: see `Observer.worker_joined`."""
        self.observer.worker_joined(self.deployment, worker, absent)

    def worker_left(self, worker: str, departure: Departure, absent: int | None) -> None:
        """A worker's session has ended. `absent`: see `Observer.worker_joined`."""
        self.observer.worker_left(self.deployment, worker, departure, absent)

    def alarm(self, reason: str, *, mismatch: bool = False) -> None:
        """An operator should look. `mismatch`: workers serve with an unexpected placement."""
        self.observer.alarm(self.deployment, reason, mismatch=mismatch)

    def store_failed(self, reason: str) -> None:
        """An operation of the store failed."""
        self.observer.store_failed()
        self.alarm(reason)

    def store_unavailable(self, error: StoreError) -> UnavailableError:
        """Report an error of the store; returns the error for callers."""
        self.store_failed(f"the store failed: {error}")
        return UnavailableError(f"the server's store failed: {error}", RETRY_AFTER_S)

    @contextmanager
    def reporting_store_errors(self) -> Iterator[None]:
        """Report a StoreError, and raise UnavailableError for it."""
        try:
            yield
        except StoreError as error:
            raise self.store_unavailable(error) from error

    def _aborted(self, cause: Cause) -> None:
        self.observer.switch_progressed(self.deployment, "aborted")
        self.observer.switch_aborted(self.deployment, cause)
