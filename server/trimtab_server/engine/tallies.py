"""What the workers of a deployment have counted: the newest incarnation of each."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trimtab_server.domain.errors import InvalidArgumentError, SessionClosedError
from trimtab_server.engine.baselines import baseline_of, restore
from trimtab_server.engine.teller import Teller
from trimtab_server.loads.adaptive import AdaptiveLoad
from trimtab_server.loads.counters import Counters, Report, Taken
from trimtab_server.loads.estimates import Estimate, Smoothing
from trimtab_server.loads.evidence import Evidence, Known, from_rates
from trimtab_server.rollout.effects import Note
from trimtab_server.rollout.messages import Hello
from trimtab_server.store.counters import SavedCounters


class Unsaved(NamedTuple):
    """What to save, and up to which report of which incarnation, by worker."""

    upto: Mapping[str, tuple[int, int]]
    baselines: Mapping[str, SavedCounters]


@dataclass(frozen=True, eq=False)
class Last:
    """What a worker has counted between its last two reports: tokens [L, E], in so many steps."""

    tokens_LE: npt.NDArray[np.float64]
    steps: int


class Counted(NamedTuple):
    """Tokens int64 [L, E], which only rise as long as it is `by` the same processes."""

    by: object
    tokens_LE: npt.NDArray[np.int64]


class Group(NamedTuple):
    """Who counts.

    Attributes:
        awaited: workers whose counts are waited for.
        apart: whether each counts the tokens of its own requests, and no others.
    """

    awaited: AbstractSet[str]
    apart: bool


class _Tally:
    """One worker: what its newest incarnation has counted, and what it comes to a step.

    A new incarnation counts anew. Its load goes on from the one before: it serves the same.
    """

    def __init__(self, counters: Counters, estimate: Estimate) -> None:
        self.counters = counters
        self.estimate = estimate
        self.last: Last | None = None
        self._late_LE: npt.NDArray[np.float64] | None = None

    def forget(self, estimate: Estimate) -> None:
        """What was reported so far is no traffic: begin with another estimate."""
        self.estimate, self.last, self._late_LE = estimate, None, None

    def add(self, taken: Taken) -> Last | None:
        """Take what a report adds to the load; None: nothing yet."""
        if taken.counted.gap:
            return None
        tokens_LE = taken.tokens_LE.astype(np.float64)
        if self._late_LE is not None:
            tokens_LE += self._late_LE
        if taken.steps:
            self.estimate.add(tokens_LE, taken.steps)
            self.last = Last(tokens_LE, taken.steps)
        # More of a step that the report before had counted: it goes with the next ones.
        self._late_LE = None if taken.steps else tokens_LE
        return self.last if taken.steps else None


def _uneven(halves: Collection[int]) -> bool:
    """Whether one is so much larger than the other that they are dealt anew, if they can be."""
    fewest = min(Counter(halves)[half] for half in (0, 1))
    return len(halves) > 1 and 3 * fewest < len(halves)


class Tallies:
    """The tally of each worker. Lives on the event loop.

    Args:
        num_layers: L.
        num_experts: E.
        smoothing: over how many steps counts are averaged.
        teller: told of reports.
        group: says who counts now.

    Attributes:
        changes: how often the load has changed.
    """

    def __init__(
        self,
        num_layers: int,
        num_experts: int,
        smoothing: Smoothing,
        teller: Teller,
        group: Callable[[], Group],
    ) -> None:
        self._shape = num_layers, num_experts
        self._group = group
        self._smoothing = smoothing
        self._teller = teller
        self._tallies: dict[str, _Tally] = {}
        self._halves: dict[str, int] = {}
        self._adaptive: AdaptiveLoad | None = None
        self._start_adaptive()
        self._heard_at: dict[str, float] = {}
        self.changes = 0
        self._saved: Mapping[str, tuple[int, int]] = {}

    def restore(self, saved: Mapping[str, SavedCounters]) -> None:
        """Go on from what was saved."""
        for worker, baseline in saved.items():
            if baseline.counts_LE.shape == self._shape:
                estimate = self._smoothing.estimate(*self._shape)
                self._count_from(worker, _Tally(restore(baseline, estimate), estimate))
        self._start_adaptive()

    def take(self, hello: Hello, report: Report) -> int:
        """Count a worker's report; returns the number to acknowledge.

        Raises:
            InvalidArgumentError: see `Counters.take`.
            SessionClosedError: a newer incarnation of the worker has reported.
        """
        tally = self._tally_of(hello)
        try:
            taken = tally.counters.take(report)
        except InvalidArgumentError:
            self._teller.refused_report()
            raise
        self._heard_at[hello.worker] = asyncio.get_running_loop().time()
        if taken is not None:
            if report.discard:
                tally.forget(self._smoothing.estimate(*self._shape))
                if self._adaptive is not None:
                    self._adaptive.discard(hello.worker)
            elif (last := tally.add(taken)) is not None and self._adaptive is not None:
                self._adaptive.add(hello.worker, last.tokens_LE, last.steps)
            self.changes += 1
        self._teller.reported(hello, report.seq, None if taken is None else taken.counted)
        return tally.counters.seq

    def load(self) -> npt.NDArray[np.float64]:
        """Tokens of each expert a step, of all workers together, float64 [L, E].

        Who is away counts as it did last: the others' tokens do not show what it would have.
        """
        return self.known().load_LE

    def known(self) -> Known:
        """The same, and what it rests on."""
        known = self._remembered()
        if known is not None:
            return known
        rates = self._counting()
        if not rates:
            return Known(np.zeros(self._shape), Evidence(np.zeros(self._shape[0]), 1.0))
        steps = {who: self._tallies[who].estimate.effective_steps for who in rates}
        return Known(self.sum(rates), from_rates(rates, steps, self._halves_of(self._group())))

    def counted(self) -> Counted:
        """All that their processes have counted."""
        by = frozenset((who, each.counters.incarnation) for who, each in self._tallies.items())
        tokens_LE = np.zeros(self._shape, np.int64)
        for tally in self._tallies.values():
            tokens_LE += tally.counters.counts_LE
        return Counted(by, tokens_LE)

    def rates(self) -> dict[str, npt.NDArray[np.float64]]:
        """Tokens a step of each worker, float64 [L, E]."""
        return {worker: tally.estimate.rate() for worker, tally in self._tallies.items()}

    def last_rates(self) -> dict[str, npt.NDArray[np.float64]]:
        """The same of what each has reported last; nothing of whom has not since the start."""
        lasts = {worker: tally.last for worker, tally in self._tallies.items()}
        return {who: last.tokens_LE / last.steps for who, last in lasts.items() if last}

    def last_step_of(self, worker: str) -> int:
        """The last that a worker has counted; -1 before the first."""
        tally = self._tallies.get(worker)
        return -1 if tally is None else tally.counters.last_step

    def heard_at(self, worker: str) -> float | None:
        """When a worker has reported last, of the event loop's clock; None: not since the start."""
        return self._heard_at.get(worker)

    def smooth(self, smoothing: Smoothing) -> None:
        """Go on with another smoothing, from what the estimates say now."""
        self._smoothing = smoothing
        self.changes += 1
        for tally in self._tallies.values():
            before, tally.estimate = tally.estimate, smoothing.estimate(*self._shape)
            if before.steps:
                tally.estimate.resume(before.rate(), before.steps, before.effective_steps)
        self._start_adaptive()

    @property
    def step(self) -> int:
        """The last that any of the workers has counted; -1 before the first."""
        return max((each.counters.last_step for each in self._tallies.values()), default=-1)

    @property
    def steps(self) -> float:
        """For how many steps the load stands: of the worker of whom most is known."""
        return max((each.estimate.steps for each in self._tallies.values()), default=0.0)

    @property
    def workers(self) -> AbstractSet[str]:
        """The workers that have a tally."""
        return self._tallies.keys()

    def forget(self, workers: AbstractSet[str]) -> None:
        """Their counts are of no more use: names may be new with each start of an engine."""
        self.changes += bool(workers)
        for worker in workers:
            del self._tallies[worker]
            self._heard_at.pop(worker, None)
            self._halves.pop(worker, None)
            if self._adaptive is not None:
                self._adaptive.forget(worker)
        if self._halves and _uneven(self._halves.values()):
            self._halves.clear()
            self._start_adaptive()

    def forget_load(self) -> None:
        """What all have reported so far is no traffic."""
        for tally in self._tallies.values():
            tally.forget(self._smoothing.estimate(*self._shape))
        self._start_adaptive()
        self.changes += 1
        # To be saved anew, though no report has come.
        self._saved = {}

    def unsaved(self) -> Unsaved | None:
        """All there is, if it has changed since it was saved."""
        counters = {worker: tally.counters for worker, tally in self._tallies.items()}
        upto = {worker: (each.incarnation, each.seq) for worker, each in counters.items()}
        if upto == self._saved:
            return None
        tallies = self._tallies.items()
        return Unsaved(
            upto, {worker: baseline_of(each.counters, each.estimate) for worker, each in tallies}
        )

    def saved(self, what: Unsaved) -> None:
        """This is durable."""
        self._saved = what.upto

    def sum(self, rates: Mapping[str, npt.NDArray[np.float64]]) -> npt.NDArray[np.float64]:
        """Of all workers together, float64 [L, E].

        In order of their names, not of their coming: so the last bit is the same each time.
        """
        total_LE = np.zeros(self._shape)
        for worker in sorted(rates):
            total_LE += rates[worker]
        return total_LE

    def _start_adaptive(self) -> None:
        """Remember what the estimates say, and nothing else."""
        self._adaptive = AdaptiveLoad(*self._shape) if self._smoothing.adaptive else None
        rates = self._counting()
        if self._adaptive is not None and rates:
            steps = min(self._tallies[worker].estimate.effective_steps for worker in rates)
            self._adaptive.start(rates, steps, self._halves_of(self._group()))

    def _remembered(self) -> Known | None:
        """What is known with the newest cells; None: nothing yet, or it is not adaptive."""
        if self._adaptive is None:
            return None
        group = self._group()
        self._adaptive.update(group.awaited, self._counting, self._halves_of(group))
        return self._adaptive.known()

    def _counting(self) -> dict[str, npt.NDArray[np.float64]]:
        """Tokens a step of those who have counted any step."""
        tallies = self._tallies.items()
        return {who: each.estimate.rate() for who, each in tallies if each.estimate.steps}

    def _halves_of(self, group: Group) -> Mapping[str, int] | None:
        """A half for each worker, for good; None: two may count tokens of one request.

        Dealt in order of their names, once all have reported: not in that of their coming.
        """
        if not group.apart:
            return None
        new = self._tallies.keys() - self._halves.keys()
        if new and not group.awaited <= self._tallies.keys():
            return None
        for worker in sorted(new):
            taken = list(self._halves.values())
            self._halves[worker] = int(taken.count(1) < taken.count(0))
        return self._halves

    def _tally_of(self, hello: Hello) -> _Tally:
        tally = self._tallies.get(hello.worker)
        if tally is None:
            counters = Counters(hello.incarnation, *self._shape)
            tally = _Tally(counters, self._smoothing.estimate(*self._shape))
            self._count_from(hello.worker, tally)
        elif tally.counters.incarnation < hello.incarnation:
            tally.counters = Counters(hello.incarnation, *self._shape)
            if self._adaptive is not None:
                self._adaptive.forget(hello.worker)
            self._count_from(hello.worker, tally)
        elif tally.counters.incarnation > hello.incarnation:
            raise SessionClosedError("a newer incarnation of this worker has reported")
        return tally

    def _count_from(self, worker: str, tally: _Tally) -> None:
        """Count a worker's reports from a baseline on; the history says from which."""
        self._tallies[worker] = tally
        counters = tally.counters
        who = {"worker": worker, "incarnation": counters.incarnation}
        self._teller.noted(Note("restored", {**who, "counts": int(counters.counts_LE.sum())}))
