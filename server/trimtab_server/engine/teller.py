"""Tells what happens in one deployment: to its history, and to whoever watches over it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from trimtab_protocol.history import (
    Aborting,
    Again,
    Applied,
    Committed,
    Event,
    Offered,
    Other,
)
from trimtab_protocol.lines import kind_of
from trimtab_protocol.messages import Hello
from trimtab_server.engine.decision_log import Decided
from trimtab_server.engine.deployment_observer import (
    DeploymentObserver,
    Outcome,
    Standing,
    Taken,
)
from trimtab_server.engine.status import Status
from trimtab_server.engine.switch_observer import SwitchObserver
from trimtab_server.loads.counters import Counted
from trimtab_server.rollout.effects import Cause
from trimtab_server.rollout.rollout import Rollout

_OUTCOMES: Mapping[type[Event], Outcome] = {
    Offered: "offered",
    Committed: "committed",
    Applied: "applied",
}


class Teller:
    """One deployment's line to the history, and to the observer.

    Attributes:
        deployment: its name.
    """

    def __init__(
        self, deployment: str, history: SwitchObserver, observer: DeploymentObserver
    ) -> None:
        self.deployment = deployment
        self._history = history
        self._observer = observer

    def stands(self, rollout: Rollout, sessions: int) -> None:
        """Something has happened."""
        record = rollout.record
        version = None if record.switch is None else record.switch.version
        standing = Standing(sessions, rollout.phase.value, version, record.paused)
        self._observer.stands(self.deployment, standing)

    def gone(self) -> None:
        """The server forgets the deployment."""
        self._observer.gone(self.deployment)
        # What is still under way is of no interest any more.
        self._observer = DeploymentObserver()

    def noted(self, event: Event) -> None:
        """An event of the history."""
        self._history.noted(replace(event, deployment=self.deployment))
        match event:
            case Again(Offered()):
                # What was offered and not committed when the server ended is aborted.
                self._aborted(Cause.RESTART)
            case Aborting():
                self._aborted(Cause(event.cause))
            case _ if kind_of(event) == "ignored":
                self._observer.ignored(self.deployment)
            case _ if type(event) in _OUTCOMES:
                self._observer.switched(self.deployment, _OUTCOMES[type(event)])

    def reported(self, hello: Hello, seq: int, counted: Counted | None) -> None:
        """A report was counted; None: it had been before."""
        taken: Taken = "repeated" if counted is None else "gap" if counted.gap else "accepted"
        if counted is not None:
            self._history.reported(self.deployment, hello.worker, hello.incarnation, seq, counted)
        self._observer.reported(self.deployment, taken)

    def refused_report(self) -> None:
        """A report was not counted: it cannot be."""
        self._observer.reported(self.deployment, "refused")

    def decided(self, decided: Decided, *, news: bool) -> None:
        """It was decided whether experts move; no news is what was decided before as well."""
        decision, candidate = decided.decision, decided.decision.candidate
        self._observer.decided(self.deployment, decision, decided.seconds, decided.judged)
        if news:
            certainty, judged = decision.certainty, decided.judged
            values = {
                "reason": decision.reason.value,
                "mode": decided.mode.value,
                "step": decided.step,
                "before": candidate and candidate.before,
                "after": candidate and candidate.after,
                "moves": candidate and candidate.moves,
                "certainty": certainty and vars(certainty),
                "judged": judged and vars(judged),
            }
            self.noted(Other("decided", values))

    def looked(self, status: Status) -> None:
        """How it is, once more."""
        self._observer.looked(self.deployment, status)

    def moved(self, moves: int, moved_bytes: int) -> None:
        """A switch has taken place, and so many expert weights went to other GPUs for it."""
        self._observer.moved(self.deployment, moves, moved_bytes)

    def alarm(self, reason: str, *, mismatch: bool = False) -> None:
        """A person should look; a mismatch: workers serve by what they should not."""
        self._history.alarm(self.deployment, reason)
        self._observer.alarmed(self.deployment)
        if mismatch:
            self._observer.mismatched(self.deployment)

    def store_failed(self, what: str) -> None:
        """The store could not do something."""
        self._observer.store_failed()
        self.alarm(what)

    def _aborted(self, cause: Cause) -> None:
        self._observer.switched(self.deployment, "aborted")
        self._observer.aborted(self.deployment, cause)
