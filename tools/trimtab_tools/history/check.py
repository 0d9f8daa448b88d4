"""Holds a history to all rules, event by event."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from trimtab_protocol.history import Again, Event, Flipped, Other, Started
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
"""What each deployment is held to. P1 is about the server, liveness about the end."""


@dataclass(frozen=True)
class Violation:
    """A rule that was broken.

    Attributes:
        invariant: "I1" to "I8", "liveness", or "P1" to "P4".
        line: of the event that broke it; for liveness, of what still stands at the end.
        deployment: where; empty if it has no name, and for P1.
        message: what happened, with the versions, workers and values.
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
    """What a history holds, and what is wrong with it.

    Attributes:
        violations: in the order of the history; those of liveness last.
        events: lines that were read.
        other_kinds: lines of each kind that says nothing about the rules, and is not judged.
        deployments: that have lines.
        epochs: that were opened.
        offered: switches.
        committed: switches.
        aborted: switches whose abort has at least begun.
        flips: of single workers.
        unplaced: versions without a recorded placement, for which I8 is not checked.
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
    """Judge a history, or as much of one as there is.

    Args:
        events: in the order in which they happened.
        complete: the run has come to rest, so liveness is judged too.
    """
    checker = _Checker()
    for event in events:
        checker.see(event)
    if complete:
        checker.end()
    return checker.report()


class _Checker:
    def __init__(self) -> None:
        self._pasts: defaultdict[str, Past] = defaultdict(Past)
        self._started: Started | None = None
        self._events = 0
        self._flips = 0
        self._others: Counter[str] = Counter()
        self._violations: list[Violation] = []

    def see(self, event: Event) -> None:
        self._events += 1
        if not isinstance(event, Again):
            self._take(event)
        elif not self._pasts[event.deployment].has(event.event):
            self._take(event.event)
        else:
            # No news, but a store that has come to hold another placement would show here.
            self._judge(event.event, "I2")

    def _take(self, event: Event) -> None:
        match event:
            case Other():
                self._others[event.kind] += 1
            case Started():
                self._tell("P1", event, rules.p1(self._started, event))
                if self._started is not None and event.term <= self._started.term:
                    # P1 has said it: the server has lost its store, and counts anew.
                    for past in self._pasts.values():
                        past.highest = 0
                self._started = event
            case _:
                self._judge(event, *RULES)
                self._pasts[event.deployment].add(event)
                self._flips += isinstance(event, Flipped)

    def _judge(self, event: Event, *codes: str) -> None:
        for code in codes:
            self._tell(code, event, RULES[code](self._pasts[event.deployment], event))

    def _tell(self, code: str, event: Event, messages: Iterable[str]) -> None:
        deployment = event.deployment if code in RULES else ""
        self._violations += (Violation(code, event.line, deployment, text) for text in messages)

    def end(self) -> None:
        for deployment, past in self._pasts.items():
            for line, message in invariants.liveness(past):
                self._violations.append(Violation("liveness", line, deployment, message))

    def report(self) -> Report:
        pasts = self._pasts.values()
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
