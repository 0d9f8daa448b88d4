"""Prometheus metrics of deployments. The series of a deployment end when it is closed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Gauge

from trimtab_protocol.history import Reported
from trimtab_server.engine.observer import (
    Observer,
    Outcome,
    ReportResult,
    RolloutSummary,
)
from trimtab_server.engine.status import Status
from trimtab_server.metrics import deployment_families as families
from trimtab_server.metrics import series
from trimtab_server.metrics.config import MetricsConfig
from trimtab_server.metrics.deployment_gauge import DeploymentGauge
from trimtab_server.metrics.status import StatusMetrics
from trimtab_server.policy.decide import Decision, Reason
from trimtab_server.policy.trust import Judgement
from trimtab_server.rollout.effects import Cause

_MAX_REASON = 100
_OTHERS = ""
_PHASES = ("idle", "offered", "committed", "aborting")
_IN_FORCE, _PLANNED = ("in_force",), ("planned",)


class DeploymentMetrics(Observer):
    """Implements the part of `Observer` that is about deployments.

    The series of a deployment begin with its first `rollout_changed`, or if there is no room for
    them then, with the first `status_refreshed` when there is.

    Args:
        registry: gets the metrics.
        clock: returns seconds that only rise.
        max_shown: maximum number of deployments with series of their own.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        clock: Callable[[], float] = time.monotonic,
        max_shown: int = MetricsConfig.max_deployment_series,
    ) -> None:
        self._clock = clock
        self._max_shown = max_shown
        self._without = series.gauge(families.WITHOUT_METRICS, registry)
        self._sessions = series.gauge(families.SESSIONS, registry)
        self._refused = series.counter(families.SESSIONS_REFUSED, registry)
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
        self._alarms.labels(_OTHERS)
        self._decisions = series.counter(families.DECISIONS, registry)
        self._predicted = series.gauge(families.PREDICTED, registry)
        self._certainty = {
            "tokens": DeploymentGauge(families.EVIDENCE, registry),
            "overdispersion": DeploymentGauge(families.OVERDISPERSION, registry),
            "noise": DeploymentGauge(families.NOISE, registry),
            "distrust": DeploymentGauge(families.DISTRUST, registry),
        }
        self._gain = DeploymentGauge(families.SWITCH_GAIN, registry)
        self._deciding = series.histogram(families.DECISION_DURATION, registry)
        self._status = StatusMetrics(registry)
        self._paused_for = DeploymentGauge(families.PAUSED_FOR, registry)
        self._mismatches = series.counter(families.MISMATCHES, registry)
        self._moves = series.counter(families.APPLIED_MOVES, registry)
        self._bytes = series.counter(families.APPLIED_BYTES, registry)
        self._phase_duration = series.histogram(families.PHASE_DURATION, registry)
        self._store_failures = series.counter(families.STORE_FAILURES, registry)
        self._store_failing = series.gauge(families.STORE_FAILING, registry)
        self._history_lost = series.counter(families.HISTORY_LOST, registry)
        # All values of the label that each metric has beside the deployment.
        self._labels: dict[Counter | Gauge, tuple[tuple[str, ...], ...]] = {
            **dict.fromkeys((self._sessions, self._age, self._paused), ((),)),
            **dict.fromkeys((self._delayed, self._ignored, self._alarms), ((),)),
            self._refused: ((),),
            **dict.fromkeys((self._mismatches, self._moves, self._bytes), ((),)),
            self._reports: tuple((result,) for result in get_args(ReportResult)),
            self._switches: tuple((outcome,) for outcome in get_args(Outcome)),
            self._aborts: tuple((cause.value,) for cause in Cause),
            self._phase: tuple((phase,) for phase in _PHASES),
            self._decisions: tuple((reason.value,) for reason in Reason),
            self._predicted: (_IN_FORCE, _PLANNED),
        }
        # The last summary of each deployment, and when its switch entered its phase.
        self._known: dict[str, tuple[RolloutSummary, float]] = {}
        # Those that have series.
        self._shown: set[str] = set()

    def rollout_changed(self, deployment: str, summary: RolloutSummary) -> None:
        """See `Observer`."""
        known = self._known.get(deployment)
        since = self._clock() if known is None else known[1]
        if known is not None and _switch(known[0]) != _switch(summary):
            since = self._clock()
            if known[0].phase != _PHASES[0]:
                self._phase_duration.labels(known[0].phase).observe(since - known[1])
        self._known[deployment] = summary, since
        if known is None:
            self._show(deployment)
        elif deployment in self._shown:
            self._set_summary(deployment, summary)

    def _show(self, deployment: str) -> bool:
        """Create the series of a deployment if there is room; returns whether it has them."""
        if deployment not in self._shown and len(self._shown) < self._max_shown:
            self._shown.add(deployment)
            # Create all series at 0, so that the first event of each shows as a rise.
            for _ in self._series(deployment):
                pass
            self._age.labels(deployment).set_function(lambda: self._phase_age(deployment))
            self._set_summary(deployment, self._known[deployment][0])
        self._without.set(len(self._known) - len(self._shown))
        return deployment in self._shown

    def _set_summary(self, deployment: str, summary: RolloutSummary) -> None:
        for phase in _PHASES:
            self._phase.labels(deployment, phase).set(phase == summary.phase)
        self._sessions.labels(deployment).set(summary.sessions)
        self._paused.labels(deployment).set(summary.paused is not None)
        reason = summary.paused
        self._paused_for.set(deployment, {} if reason is None else {(reason[:_MAX_REASON],): 1})

    def deployment_closed(self, deployment: str) -> None:
        """See `Observer`."""
        self._known.pop(deployment, None)
        was_shown = deployment in self._shown
        self._shown.discard(deployment)
        self._without.set(len(self._known) - len(self._shown))
        if not was_shown:
            return
        self._status.remove(deployment)
        for gauge in (*self._certainty.values(), self._gain, self._paused_for):
            gauge.set(deployment, {})
        for metric, labels in self._series(deployment):
            metric.remove(*labels)

    def switch_progressed(self, deployment: str, outcome: Outcome) -> None:
        """See `Observer`."""
        self._count(self._switches, deployment, outcome)

    def switch_aborted(self, deployment: str, cause: Cause) -> None:
        """See `Observer`."""
        self._count(self._aborts, deployment, cause.value)

    def session_refused(self, deployment: str, worker: str, reason: str, times: int) -> None:
        """See `Observer`. Names of deployments that do not exist make no series."""
        self._refused.labels(deployment if deployment in self._known else "").inc()

    def message_received(self, kind: str) -> None:
        """See `Observer`."""
        self._messages.labels(kind).inc()

    def message_delayed(self, deployment: str) -> None:
        """See `Observer`."""
        self._count(self._delayed, deployment)

    def report_handled(
        self, deployment: str, result: ReportResult, reported: Reported | None
    ) -> None:
        """See `Observer`."""
        self._count(self._reports, deployment, result)

    def answer_ignored(self, deployment: str) -> None:
        """See `Observer`."""
        self._count(self._ignored, deployment)

    def status_refreshed(self, deployment: str, status: Status) -> None:
        """See `Observer`."""
        if deployment in self._known and self._show(deployment):
            self._status.update(deployment, status)

    def placement_applied(self, deployment: str, moves: int, moved_bytes: int) -> None:
        """See `Observer`."""
        self._count(self._moves, deployment, by=moves)
        self._count(self._bytes, deployment, by=moved_bytes)

    def decision_made(
        self, deployment: str, decision: Decision, seconds: float, judged: Judgement | None
    ) -> None:
        """See `Observer`."""
        if decision.planned:
            self._deciding.observe(seconds)
        if deployment not in self._shown:
            return
        if decision.certainty is not None:
            for name, gauge in self._certainty.items():
                gauge.set(deployment, {(): getattr(decision.certainty, name)})
        if judged is not None:
            gains = ("promised", judged.promised), ("realised", judged.realised)
            self._gain.set(deployment, {(name,): gain for name, gain in gains})
        self._decisions.labels(deployment, decision.reason.value).inc()
        if decision.candidate is not None:
            self._predicted.labels(deployment, *_IN_FORCE).set(decision.candidate.before)
            self._predicted.labels(deployment, *_PLANNED).set(decision.candidate.after)

    def alarm(self, deployment: str, reason: str, *, mismatch: bool) -> None:
        """See `Observer`."""
        # Nobody may miss an alarm, so those of other deployments are counted too, without a name.
        self._alarms.labels(deployment if deployment in self._shown else _OTHERS).inc()
        if mismatch:
            self._count(self._mismatches, deployment)

    def history_lost(self) -> None:
        """A line of the history could not be written. Any thread may call this."""
        self._history_lost.inc()

    def store_failed(self) -> None:
        """See `Observer`."""
        self._store_failures.inc()

    def store_health_changed(self, failure: str | None) -> None:
        """See `Observer`."""
        self._store_failing.set(failure is not None)

    def _count(self, counter: Counter, deployment: str, *labels: str, by: float = 1) -> None:
        """Count an event of a deployment, if it has series."""
        if deployment in self._shown:
            counter.labels(deployment, *labels).inc(by)

    def _series(self, deployment: str) -> Iterator[tuple[Counter | Gauge, tuple[str, ...]]]:
        """All series of a deployment, each of which is created if it does not exist."""
        for metric, others in self._labels.items():
            for values in others:
                metric.labels(deployment, *values)
                yield metric, (deployment, *values)

    def _phase_age(self, deployment: str) -> float:
        """Called at each scrape, from any thread."""
        known = self._known.get(deployment)
        if known is None or known[0].version is None:
            return 0.0
        return self._clock() - known[1]


def _switch(summary: RolloutSummary) -> tuple[object, ...]:
    return summary.phase, summary.version
