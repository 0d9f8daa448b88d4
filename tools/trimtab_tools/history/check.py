"""Checks a history against all rules, event by event."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from trimtab_protocol.history import Again, Deleted, Event, Flipped, Other, Started
from trimtab_tools.history import invariants, rules
from trimtab_tools.history.past import Past

RULES: Mapping[str, Callable[[Past, Event], Iterator[str]]] = {
    "I1": invariants.i1,
    "I2": invariants.i2,
    "I3": invariants.i3,
    "I4": invariants.i4,
    "I5": invariants.i5,
    "I6": invariants.i6,
    "I7": invariants.i7,
    "I8": invariants.i8,
    "P2": rules.p2,
    "P3": rules.p3,
    "P4": rules.p4,
}
"""The rules for each deployment. P1 is about the server, and liveness about the end."""


@dataclass(frozen=True)
class Violation:
    """A rule that an event broke.

    Attributes:
        invariant: "I1" to "I8", "liveness", or "P1" to "P4".
        line: the line of the event; for liveness, of the last event of the switch or process.
        deployment: the name of the deployment; empty if it has none, and for P1.
        message: what happened, with versions, workers and values.
    """

    invariant: str
    line: int
    deployment: str
    message: str

    def __str__(self) -> str:
        where = f"{self.deployment}: " if self.deployment else ""
        return f"line {self.line}: {self.invariant}: {where}{self.message}"


@dataclass(frozen=True)
class Report:
    """The result of a check.

    Attributes:
        violations: in the order of the history; violations of liveness come last.
        events: number of lines read.
        other_kinds: number of lines by kind, for kinds that no rule is about.
        deployments: number of deployments that have lines.
        epochs: number of epochs opened.
        offered: number of switches offered.
        committed: number of switches committed.
        aborted: number of switches whose abort has begun or ended.
        flips: number of flips, each of one worker.
        unplaced: number of versions without a recorded placement, for which I8 is not checked.
    """

    violations: tuple[Violation, ...]
    events: int
    other_kinds: Mapping[str, int]
    deployments: int
    epochs: int
    offered: int
    committed: int
    aborted: int
    flips: int
    unplaced: int


def check_history(events: Iterable[Event], *, complete: bool = False) -> Report:
    """Check a history, or the first part of one.

    Args:
        events: in the order in which they happened.
        complete: whether the run has ended, so that liveness is checked too.
    """
    checker = _Checker()
    for event in events:
        checker.add(event)
    if complete:
        checker.end()
    return checker.report()


class _Checker:
    def __init__(self) -> None:
        self._pasts: defaultdict[str, Past] = defaultdict(Past)
        self._deleted: list[Past] = []
        self._started: Started | None = None
        self._events = 0
        self._flips = 0
        self._others: Counter[str] = Counter()
        self._violations: list[Violation] = []

    def add(self, event: Event) -> None:
        self._events += 1
        if not isinstance(event, Again):
            self._process(event)
        elif not self._pasts[event.deployment].has(event.event):
            self._process(event.event)
        else:
            # The event is known, but I2 shows whether the store now holds another placement.
            self._judge(event.event, "I2")

    def _process(self, event: Event) -> None:
        match event:
            case Other():
                self._others[event.kind] += 1
            case Deleted():
                self._deleted.append(self._pasts.pop(event.deployment, Past()))
            case Started():
                self._report("P1", event, rules.p1(self._started, event))
                if self._started is not None and event.term <= self._started.term:
                    # P1 has reported it: the server has lost its store, and counts from 0 again.
                    for past in self._pasts.values():
                        past.highest = 0
                self._started = event
            case _:
                self._judge(event, *RULES)
                self._pasts[event.deployment].add(event)
                self._flips += isinstance(event, Flipped)

    def _judge(self, event: Event, *codes: str) -> None:
        for code in codes:
            self._report(code, event, RULES[code](self._pasts[event.deployment], event))

    def _report(self, code: str, event: Event, messages: Iterable[str]) -> None:
        deployment = event.deployment if code in RULES else ""
        self._violations += (Violation(code, event.line, deployment, text) for text in messages)

    def end(self) -> None:
        for deployment, past in self._pasts.items():
            for line, message in invariants.liveness(past):
                self._violations.append(Violation("liveness", line, deployment, message))

    def report(self) -> Report:
        pasts = [*self._deleted, *self._pasts.values()]
        return Report(
            violations=tuple(self._violations),
            events=self._events,
            other_kinds=dict(self._others),
            deployments=len(pasts),
            epochs=sum(len(past.epochs) for past in pasts),
            offered=sum(len(past.offered) for past in pasts),
            committed=sum(len(past.committed) for past in pasts),
            aborted=sum(len(past.aborted) for past in pasts),
            flips=self._flips,
            unplaced=sum(len(past.digests.keys() - past.placed) for past in pasts),
        )
