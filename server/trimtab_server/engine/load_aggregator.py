"""Adds up what the workers of a deployment report to the load of the deployment."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from collections.abc import Set as AbstractSet
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trimtab_protocol.history import Process, Reported, Restored
from trimtab_protocol.messages import Hello, Report
from trimtab_server.domain.errors import InvalidArgumentError, SessionClosedError
from trimtab_server.engine.baselines import baseline_of, restore
from trimtab_server.engine.events import DeploymentEvents
from trimtab_server.engine.observer import ReportResult
from trimtab_server.engine.worker_load import WorkerLoad
from trimtab_server.loads.adaptive import AdaptiveLoad
from trimtab_server.loads.counters import Counters
from trimtab_server.loads.estimates import Loads, Smoothing
from trimtab_server.loads.evidence import Evidence, Known, from_rates
from trimtab_server.store.counters import SavedCounters


class TotalCounts(NamedTuple):
    """All tokens counted, int64 [L, E]. They only rise while `by`, the processes, are the same."""

    by: object
    tokens_LE: npt.NDArray[np.int64]


class ReportingGroup(NamedTuple):
    """The workers that report.

    Attributes:
        awaited: workers whose counts are waited for.
        apart: whether each counts the tokens of its own requests, and no others.
    """

    awaited: AbstractSet[str]
    apart: bool


class LoadAggregator:
    """The loads of all workers, and their sum. Lives on the event loop.

    Args:
        num_layers: L.
        num_experts: E.
        smoothing: over how many steps counts are averaged.
        events: told of reports.
        group: returns the workers that report now.

    Attributes:
        changes: number of times that the load has changed.
    """

    def __init__(
        self,
        num_layers: int,
        num_experts: int,
        smoothing: Smoothing,
        events: DeploymentEvents,
        group: Callable[[], ReportingGroup],
    ) -> None:
        self._shape = num_layers, num_experts
        self._group = group
        self._smoothing = smoothing
        self._events = events
        self._workers: dict[str, WorkerLoad] = {}
        self._halves: dict[str, int] = {}
        self._adaptive: AdaptiveLoad | None = None
        self._start_adaptive()
        self.changes = 0
        self._known: tuple[object, Known] | None = None
        self._latest: tuple[int, Loads] | None = None
        self._saved: Mapping[str, tuple[int, int]] = {}

    def restore(self, saved: Mapping[str, SavedCounters]) -> None:
        """Go on from saved counters."""
        for worker, baseline in saved.items():
            if baseline.counts_LE.shape == self._shape:
                estimate = self._smoothing.estimate(*self._shape)
                self._count_from(worker, WorkerLoad(restore(baseline, estimate), estimate))
        self._start_adaptive()

    def add_report(self, hello: Hello, report: Report) -> int:
        """Count a worker's report; returns the number to acknowledge.

        Raises:
            InvalidArgumentError: see `Counters.take`.
            SessionClosedError: a newer incarnation of the worker has reported.
        """
        load = self._load_of(hello)
        try:
            taken = load.counters.take(report)
        except InvalidArgumentError:
            self._events.report_handled("refused")
            raise
        load.reported_at = asyncio.get_running_loop().time()
        if taken is None:
            self._events.report_handled("repeated")
        else:
            if report.discard:
                load.reset(self._smoothing.estimate(*self._shape))
                if self._adaptive is not None:
                    self._adaptive.discard(hello.worker)
            elif (latest := load.add(taken)) is not None and self._adaptive is not None:
                self._adaptive.add(hello.worker, latest.tokens_LE, latest.steps)
            self.changes += 1
            result: ReportResult = "gap" if taken.counted.gap else "accepted"
            process = Process(hello.worker, hello.incarnation)
            name = self._events.deployment
            reported = Reported(process, report.seq, *taken.counted, deployment=name)
            self._events.report_handled(result, reported)
        return load.counters.seq

    def load(self) -> Loads:
        """Tokens of each expert a step, of all workers together, float64 [L, E].

        An absent worker counts as it did last: the others' tokens do not show what it would have.
        """
        return self.known_load().load_LE

    def known_load(self) -> Known:
        """The load, and the evidence that it rests on.

        It is added up once for each change: those who ask get the same arrays.
        """
        group = self._group()
        key = self.changes, frozenset(group.awaited), group.apart
        if self._known is None or self._known[0] != key:
            self._known = key, self._add_up(group)
        return self._known[1]

    def _add_up(self, group: ReportingGroup) -> Known:
        if self._adaptive is not None:
            self._adaptive.update(group.awaited, self._rates_with_steps, self._halves_of(group))
            known = self._adaptive.known()
            if known is not None:
                return known
        rates = self._rates_with_steps()
        if not rates:
            return Known(np.zeros(self._shape), Evidence(np.zeros(self._shape[0]), 1.0))
        steps = {worker: self._workers[worker].estimate.effective_steps for worker in rates}
        load_LE = self.sum(rates)
        return Known(load_LE, from_rates(load_LE, rates, steps, self._halves_of(group)))

    def total_counts(self) -> TotalCounts:
        """All tokens that the workers' processes have counted."""
        loads = self._workers.items()
        by = frozenset((worker, each.counters.incarnation) for worker, each in loads)
        tokens_LE = np.zeros(self._shape, np.int64)
        for _, load in loads:
            tokens_LE += load.counters.counts_LE
        return TotalCounts(by, tokens_LE)

    def rates(self) -> dict[str, Loads]:
        """Tokens a step of each worker, float64 [L, E]."""
        return {worker: load.estimate.rate() for worker, load in self._workers.items()}

    def latest_rates(self) -> dict[str, Loads]:
        """The same by each worker's last report; without those that have not reported yet."""
        latest = {worker: load.latest for worker, load in self._workers.items()}
        return {worker: each.tokens_LE / each.steps for worker, each in latest.items() if each}

    def latest_load(self) -> Loads:
        """The sum of `latest_rates`, float64 [L, E], added up once for each change."""
        if self._latest is None or self._latest[0] != self.changes:
            self._latest = self.changes, self.sum(self.latest_rates())
        return self._latest[1]

    def last_step_of(self, worker: str) -> int:
        """The last step that a worker has counted; -1 before the first."""
        load = self._workers.get(worker)
        return -1 if load is None else load.counters.last_step

    def last_seq_of(self, worker: str) -> int:
        """The number of a worker's last report; 0 before the first."""
        load = self._workers.get(worker)
        return 0 if load is None else load.counters.seq

    def reported_at(self, worker: str) -> float | None:
        """When a worker reported last, on the event loop's clock; None if not since the start."""
        load = self._workers.get(worker)
        return None if load is None else load.reported_at

    def set_smoothing(self, smoothing: Smoothing) -> None:
        """Go on with another smoothing, from the current estimates."""
        self._smoothing = smoothing
        self.changes += 1
        for load in self._workers.values():
            before, load.estimate = load.estimate, smoothing.estimate(*self._shape)
            if before.steps:
                load.estimate.resume(before.rate(), before.steps, before.effective_steps)
        self._start_adaptive()

    @property
    def step(self) -> int:
        """The last step that any of the workers has counted; -1 before the first."""
        return max((each.counters.last_step for each in self._workers.values()), default=-1)

    @property
    def steps(self) -> float:
        """Number of steps in the load estimate of the worker that has most."""
        return max((each.estimate.steps for each in self._workers.values()), default=0.0)

    @property
    def workers(self) -> AbstractSet[str]:
        """Names of the workers that have counters."""
        return self._workers.keys()

    def remove(self, workers: AbstractSet[str]) -> None:
        """Drop workers that no longer exist. An engine may use new names each time it starts."""
        self.changes += bool(workers)
        for worker in workers:
            del self._workers[worker]
            self._halves.pop(worker, None)
            if self._adaptive is not None:
                self._adaptive.forget(worker)
        if self._halves and _uneven(self._halves.values()):
            self._halves.clear()
            self._start_adaptive()

    def reset_load(self) -> None:
        """Begin the load estimate anew, since nothing that was reported so far was traffic."""
        for load in self._workers.values():
            load.reset(self._smoothing.estimate(*self._shape))
        self._start_adaptive()
        self.changes += 1
        # The estimates have to be saved although no report has come.
        self._saved = {}

    def unsaved(self) -> Mapping[str, SavedCounters] | None:
        """All counters, by worker; None if they have not changed since they were saved."""
        loads = self._workers.items()
        upto = {worker: (each.counters.incarnation, each.counters.seq) for worker, each in loads}
        if upto == self._saved:
            return None
        return {worker: baseline_of(each.counters, each.estimate) for worker, each in loads}

    def mark_saved(self, saved: Mapping[str, SavedCounters]) -> None:
        """These counters are durable."""
        self._saved = {worker: (each.incarnation, each.seq) for worker, each in saved.items()}

    def sum(self, rates: Mapping[str, Loads]) -> Loads:
        """The sum over workers, float64 [L, E].

        Added up in order of the workers' names, so that the last bit does not depend on which
        worker reports first.
        """
        total_LE = np.zeros(self._shape)
        for worker in sorted(rates):
            total_LE += rates[worker]
        return total_LE

    def _start_adaptive(self) -> None:
        """Let the adaptive load start from the current estimates."""
        self._adaptive = AdaptiveLoad(*self._shape) if self._smoothing.adaptive else None
        rates = self._rates_with_steps()
        if self._adaptive is not None and rates:
            steps = min(self._workers[worker].estimate.effective_steps for worker in rates)
            self._adaptive.start(rates, steps, self._halves_of(self._group()))

    def _rates_with_steps(self) -> dict[str, Loads]:
        """Tokens a step of each worker that has counted any step."""
        loads = self._workers.items()
        return {worker: each.estimate.rate() for worker, each in loads if each.estimate.steps}

    def _halves_of(self, group: ReportingGroup) -> Mapping[str, int] | None:
        """The half, 0 or 1, that each worker is in for good.

        None if two workers may count tokens of the same request, and until all have reported:
        halves are dealt in order of the workers' names, not of their first reports.
        """
        if not group.apart:
            return None
        new = self._workers.keys() - self._halves.keys()
        if new and not group.awaited <= self._workers.keys():
            return None
        for worker in sorted(new):
            taken = list(self._halves.values())
            self._halves[worker] = int(taken.count(1) < taken.count(0))
        return self._halves

    def _load_of(self, hello: Hello) -> WorkerLoad:
        load = self._workers.get(hello.worker)
        if load is None:
            counters = Counters(hello.incarnation, *self._shape)
            load = WorkerLoad(counters, self._smoothing.estimate(*self._shape))
            self._count_from(hello.worker, load)
        elif load.counters.incarnation < hello.incarnation:
            load.counters = Counters(hello.incarnation, *self._shape)
            if self._adaptive is not None:
                self._adaptive.forget(hello.worker)
            self._count_from(hello.worker, load)
        elif load.counters.incarnation > hello.incarnation:
            raise SessionClosedError("a newer incarnation of this worker has reported")
        return load

    def _count_from(self, worker: str, load: WorkerLoad) -> None:
        """Count a worker's reports from these counters on, and note them in the history."""
        self._workers[worker] = load
        self.changes += 1
        counters = load.counters
        process = Process(worker, counters.incarnation)
        self._events.note(Restored(process, int(counters.counts_LE.sum())))


def _uneven(halves: Collection[int]) -> bool:
    """Whether one half has less than a third of the workers, so that halves are dealt anew."""
    fewest = min(Counter(halves)[half] for half in (0, 1))
    return len(halves) > 1 and 3 * fewest < len(halves)
