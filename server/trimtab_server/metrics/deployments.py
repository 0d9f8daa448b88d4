"""Records what happens in deployments as Prometheus metrics; those of one end with it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge

from trimtab_server.engine.deployment_observer import (
    Cause,
    DeploymentObserver,
    Outcome,
    Standing,
    Taken,
)
from trimtab_server.engine.status import Status
from trimtab_server.metrics import families, series
from trimtab_server.metrics.passing import Labels, Passing
from trimtab_server.metrics.status import StatusMetrics
from trimtab_server.policy.decide import Decision, Reason
from trimtab_server.policy.trust import Judgement

_MOST_REASON = 100
_PHASES = ("idle", "offered", "committed", "aborting")
_IN_FORCE, _PLANNED = ("in_force",), ("planned",)


class DeploymentMetrics(DeploymentObserver):
    """See `DeploymentObserver`. A deployment's series begin when it first stands anyhow.

    Args:
        registry: where the series are to be found.
        clock: seconds, rising.
    """

    def __init__(
        self, registry: CollectorRegistry, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._sessions = series.gauge(families.SESSIONS, registry)
        self._messages = series.counter(families.MESSAGES, registry)
        self._delayed = series.counter(families.DELAYED, registry)
        self._reports = series.counter(families.REPORTS, registry)
        self._ignored = series.counter(families.IGNORED, registry)
        self._switches = series.counter(families.SWITCHES, registry)
        self._aborts = series.counter(families.ABORTS, registry)
        self._phase = series.gauge(families.PHASE, registry)
        self._age = series.gauge(families.AGE, registry)
        self._paused = series.gauge(families.PAUSED, registry)
        self._alarms = series.counter(families.ALARMS, registry)
        self._decisions = series.counter(families.DECISIONS, registry)
        self._predicted = series.gauge(families.PREDICTED, registry)
        self._certainty = {
            "tokens": Passing(series.gauge(families.EVIDENCE, registry)),
            "overdispersion": Passing(series.gauge(families.OVERDISPERSION, registry)),
            "noise": Passing(series.gauge(families.NOISE, registry)),
            "distrust": Passing(series.gauge(families.DISTRUST, registry)),
        }
        self._gain = Passing(series.gauge(families.SWITCH_GAIN, registry))
        self._deciding = series.histogram(families.DECISION_DURATION, registry)
        self._status = StatusMetrics(registry)
        self._paused_for = Passing(series.gauge(families.PAUSED_FOR, registry))
        self._mismatches = series.counter(families.MISMATCHES, registry)
        self._moves = series.counter(families.APPLIED_MOVES, registry)
        self._bytes = series.counter(families.APPLIED_BYTES, registry)
        self._took = series.histogram(families.PHASE_DURATION, registry)
        self._store_failures = series.counter(families.STORE_FAILURES, registry)
        # The values of the label that each has beside the deployment.
        self._labels: dict[Counter | Gauge, tuple[tuple[str, ...], ...]] = {
            **dict.fromkeys((self._sessions, self._age, self._paused), ((),)),
            **dict.fromkeys((self._delayed, self._ignored, self._alarms), ((),)),
            **dict.fromkeys((self._mismatches, self._moves, self._bytes), ((),)),
            self._reports: tuple((taken,) for taken in get_args(Taken)),
            self._switches: tuple((outcome,) for outcome in get_args(Outcome)),
            self._aborts: tuple((cause.value,) for cause in Cause),
            self._phase: tuple((phase,) for phase in _PHASES),
            self._decisions: tuple((reason.value,) for reason in Reason),
            self._predicted: (_IN_FORCE, _PLANNED),
        }
        # Since when a deployment stands as it does.
        self._standing: dict[str, tuple[Standing, float]] = {}

    def stands(self, deployment: str, standing: Standing) -> None:
        """See `DeploymentObserver`."""
        known = self._standing.get(deployment)
        if known is None:
            # At 0, so that the first event of each is a rise.
            for _ in self._series(deployment):
                pass
            self._age.labels(deployment).set_function(lambda: self._age_of(deployment))
        if known is None or _switch(known[0]) != _switch(standing):
            since = self._clock()
            if known is not None and known[0].phase != _PHASES[0]:
                self._took.labels(known[0].phase).observe(since - known[1])
            for phase in _PHASES:
                self._phase.labels(deployment, phase).set(phase == standing.phase)
        else:
            since = known[1]
        self._standing[deployment] = standing, since
        self._sessions.labels(deployment).set(standing.sessions)
        self._paused.labels(deployment).set(standing.paused is not None)
        why = standing.paused
        self._paused_for.show(deployment, {} if why is None else {(why[:_MOST_REASON],): 1})

    def gone(self, deployment: str) -> None:
        """See `DeploymentObserver`."""
        self._standing.pop(deployment, None)
        self._paused_for.show(deployment, {})
        self._status.gone(deployment)
        for passing in (*self._certainty.values(), self._gain):
            passing.show(deployment, {})
        for metric, labels in self._series(deployment):
            metric.remove(*labels)

    def switched(self, deployment: str, outcome: Outcome) -> None:
        """See `DeploymentObserver`."""
        self._switches.labels(deployment, outcome).inc()

    def aborted(self, deployment: str, cause: Cause) -> None:
        """See `DeploymentObserver`."""
        self._aborts.labels(deployment, cause.value).inc()

    def heard(self, kind: str) -> None:
        """See `DeploymentObserver`."""
        self._messages.labels(kind).inc()

    def delayed(self, deployment: str) -> None:
        """See `DeploymentObserver`."""
        self._delayed.labels(deployment).inc()

    def reported(self, deployment: str, taken: Taken) -> None:
        """See `DeploymentObserver`."""
        self._reports.labels(deployment, taken).inc()

    def ignored(self, deployment: str) -> None:
        """See `DeploymentObserver`."""
        self._ignored.labels(deployment).inc()

    def looked(self, deployment: str, status: Status) -> None:
        """See `DeploymentObserver`."""
        if deployment in self._standing:
            self._status.looked(deployment, status)

    def moved(self, deployment: str, moves: int, moved_bytes: int) -> None:
        """See `DeploymentObserver`."""
        self._moves.labels(deployment).inc(moves)
        self._bytes.labels(deployment).inc(moved_bytes)

    def mismatched(self, deployment: str) -> None:
        """See `DeploymentObserver`."""
        self._mismatches.labels(deployment).inc()

    def decided(
        self, deployment: str, decision: Decision, seconds: float, judged: Judgement | None
    ) -> None:
        """See `DeploymentObserver`."""
        if decision.certainty is not None:
            for name, passing in self._certainty.items():
                passing.show(deployment, {(): getattr(decision.certainty, name)})
        if judged is not None:
            gains: dict[Labels, float] = {
                ("promised",): judged.promised,
                ("realised",): judged.realised,
            }
            self._gain.show(deployment, gains)
        if decision.planned:
            self._deciding.observe(seconds)
        self._decisions.labels(deployment, decision.reason.value).inc()
        if decision.candidate is not None:
            self._predicted.labels(deployment, *_IN_FORCE).set(decision.candidate.before)
            self._predicted.labels(deployment, *_PLANNED).set(decision.candidate.after)

    def alarmed(self, deployment: str) -> None:
        """See `DeploymentObserver`."""
        self._alarms.labels(deployment).inc()

    def store_failed(self) -> None:
        """See `DeploymentObserver`."""
        self._store_failures.inc()

    def _series(self, deployment: str) -> Iterator[tuple[Counter | Gauge, tuple[str, ...]]]:
        """All of a deployment. Made where they are not there yet."""
        for metric, further in self._labels.items():
            for values in further:
                metric.labels(deployment, *values)
                yield metric, (deployment, *values)

    def _age_of(self, deployment: str) -> float:
        """Called when Prometheus asks, from whatever thread."""
        known = self._standing.get(deployment)
        if known is None or known[0].version is None:
            return 0.0
        return self._clock() - known[1]


def _switch(standing: Standing) -> tuple[object, ...]:
    return standing.phase, standing.version
