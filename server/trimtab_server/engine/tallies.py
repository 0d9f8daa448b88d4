"""What the workers of a deployment have counted: the newest incarnation of each."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trimtab_server.domain.errors import InvalidArgumentError, SessionClosedError
from trimtab_server.engine.baselines import baseline_of, restored
from trimtab_server.engine.teller import Teller
from trimtab_server.loads.counters import Counters, Report
from trimtab_server.rollout.effects import Note
from trimtab_server.rollout.messages import Hello
from trimtab_server.store.counters import SavedCounters


class Unsaved(NamedTuple):
    """What to save, and up to which report of which incarnation, by worker."""

    upto: Mapping[str, tuple[int, int]]
    baselines: Mapping[str, SavedCounters]


class Tallies:
    """The counters of each worker. Lives on the event loop."""

    def __init__(self, num_layers: int, num_experts: int, teller: Teller) -> None:
        self._shape = num_layers, num_experts
        self._teller = teller
        self._counters: dict[str, Counters] = {}
        self._saved: Mapping[str, tuple[int, int]] = {}

    def restore(self, saved: Mapping[str, SavedCounters]) -> None:
        """Go on from what was saved."""
        for worker, baseline in saved.items():
            if baseline.counts_LE.shape == self._shape:
                self._count_from(worker, restored(baseline))

    def take(self, hello: Hello, report: Report) -> int:
        """Count a worker's report; returns the number to acknowledge.

        Raises:
            InvalidArgumentError: see `Counters.take`.
            SessionClosedError: a newer incarnation of the worker has reported.
        """
        counters = self._counters_of(hello)
        try:
            counted = counters.take(report)
        except InvalidArgumentError:
            self._teller.refused_report()
            raise
        self._teller.reported(hello, report.seq, counted)
        return counters.seq

    def load(self) -> npt.NDArray[np.float64]:
        """Tokens of each expert that the workers have reported, float64 [L, E]."""
        total_LE = np.zeros(self._shape)
        for counters in self._counters.values():
            total_LE += counters.load_LE
        return total_LE

    @property
    def workers(self) -> AbstractSet[str]:
        """Whose there are."""
        return self._counters.keys()

    def forget(self, workers: AbstractSet[str]) -> None:
        """Their counts are of no more use: names may be new with each start of an engine."""
        for worker in workers:
            del self._counters[worker]

    def unsaved(self) -> Unsaved | None:
        """All there is, if it has changed since it was saved."""
        upto = {worker: (each.incarnation, each.seq) for worker, each in self._counters.items()}
        if upto == self._saved:
            return None
        baselines = {worker: baseline_of(each) for worker, each in self._counters.items()}
        return Unsaved(upto, baselines)

    def saved(self, what: Unsaved) -> None:
        """This is durable."""
        self._saved = what.upto

    def _counters_of(self, hello: Hello) -> Counters:
        counters = self._counters.get(hello.worker)
        if counters is None or counters.incarnation < hello.incarnation:
            counters = Counters(hello.incarnation, *self._shape)
            self._count_from(hello.worker, counters)
        elif counters.incarnation > hello.incarnation:
            raise SessionClosedError("a newer incarnation of this worker has reported")
        return counters

    def _count_from(self, worker: str, counters: Counters) -> None:
        """Count a worker's reports from a baseline on; the history says from which."""
        self._counters[worker] = counters
        who = {"worker": worker, "incarnation": counters.incarnation}
        self._teller.noted(Note("restored", {**who, "counts": int(counters.counts_LE.sum())}))
