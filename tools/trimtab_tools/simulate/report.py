"""What a run has come to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from trimtab_tools.history import Report as Verdict
from trimtab_tools.simulate.fleet_state import FleetState, InjectedFault, Switch
from trimtab_tools.simulate.history_tail import Line
from trimtab_tools.simulate.options import FleetOptions
from trimtab_tools.simulate.windows import Window


@dataclass(frozen=True)
class FaultReport:
    """What followed from a fault.

    Attributes:
        fault: what has struck.
        at: when, in seconds since the fleet began.
        served_after: until the group that it broke had formed again and taken a step, in
            seconds; None: no group formed after it.
        flipped_after: until the next flip by all ranks, in seconds; None: there was none.
    """

    fault: str
    at: float
    served_after: float | None
    flipped_after: float | None


@dataclass(frozen=True)
class ReplayReport:
    """How balanced a trace was served. An imbalance is that of a `Window`.

    Attributes:
        windows: that were replayed to their end.
        left_out: of these, because a rank died in them, and what it had counted was lost.
        untouched: imbalance, mean over the others, had no expert moved.
        served: the same as it has been.
        worst_untouched: the highest of any of them, had no expert moved.
        worst_served: the same as it has been.
        moves_per_layer: expert weights new to a GPU, in a layer and a window.
        by_window: all that are not left out.
    """

    windows: int
    left_out: int
    untouched: float
    served: float
    worst_untouched: float
    worst_served: float
    moves_per_layer: float
    by_window: tuple[Window, ...]


@dataclass(frozen=True)
class Ended:
    """When, and how, a run has ended.

    Attributes:
        began: when, in seconds of the ledger's clock.
        at: the same of its end.
        trouble: see `Report`.
        alarms: see `Report`.
    """

    began: float
    at: float
    trouble: str
    alarms: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """What a run has come to.

    Attributes:
        seconds: from the first start to the end.
        steps: that the ranks have done.
        tokens: that came back to their ranks, but for the last tenth of a second of a rank that
            was killed.
        wrong: of these, with another value than their expert gives.
        examples: of wrong ones, at most 100.
        moved_bytes: of weights, from rank to rank, also for switches that were given up.
        moves: expert weights new to a GPU, by its flips.
        groups: that formed: 1, and one more after each death.
        accepted: switches that at least one rank has begun to prepare.
        applied: switches to which all ranks have flipped.
        discarded: switches that at least one rank has given up, for an abort or a new group.
        switch_seconds: of each applied switch, from the first rank that accepted it to the
            last that flipped, ascending.
        target_seconds: of each placement that was asked for, until all ranks served by it,
            which may take several switches; ascending.
        faults: that have struck.
        complaints: what ranks have noted that broke the protocol, without effect.
        alarms: of the fleet's own server.
        trouble: why it could not go on, or did not come to rest; empty if it did.
        verdict: on the history; None: there is none.
        decisions: whether experts move, by their reason, as far as the history has them.
        replayed: None: there was no trace, or no window of it that all ranks have counted.
    """

    seconds: float
    steps: int
    tokens: int
    wrong: int
    examples: tuple[str, ...]
    moved_bytes: int
    moves: int
    groups: int
    accepted: int
    applied: int
    discarded: int
    switch_seconds: tuple[float, ...]
    target_seconds: tuple[float, ...]
    faults: tuple[FaultReport, ...]
    complaints: tuple[str, ...]
    alarms: tuple[str, ...]
    trouble: str
    verdict: Verdict | None
    decisions: Mapping[str, int]
    replayed: ReplayReport | None

    @property
    def ok(self) -> bool:
        """Whether nothing was wrong: no token, no violation, and it came to rest."""
        violated = self.verdict is not None and self.verdict.violations
        return not (self.wrong or self.trouble or violated)


def make_report(
    ledger: FleetState,
    options: FleetOptions,
    ended: Ended,
    target_seconds: Sequence[float],
    decided: Sequence[Line],
    verdict: Verdict | None,
) -> Report:
    """Sum up what a ledger says, and the lines of decisions in a history."""
    total = ledger.total()
    switches = list(ledger.switches.values())
    applied = [switch for switch in switches if switch.is_whole]
    return Report(
        seconds=ended.at - ended.began,
        steps=total.step + 1,
        tokens=total.tokens,
        wrong=total.wrong,
        examples=tuple(ledger.examples),
        moved_bytes=total.moved,
        moves=total.moves,
        groups=ledger.groups,
        accepted=len(switches),
        applied=len(applied),
        discarded=sum(switch.discarded for switch in switches),
        switch_seconds=tuple(sorted(each.flipped_at - each.accepted_at for each in applied)),
        target_seconds=tuple(sorted(target_seconds)),
        faults=tuple(_fault(ledger, ended.began, struck, applied) for struck in ledger.faults),
        complaints=tuple(ledger.complaints),
        alarms=ended.alarms,
        trouble=ended.trouble,
        verdict=verdict,
        decisions=dict(Counter(line["reason"] for line in decided)),
        replayed=_replayed(ledger, options, total.moves),
    )


def _replayed(ledger: FleetState, options: FleetOptions, moves: int) -> ReplayReport | None:
    windows, ended = ledger.windows.complete, ledger.windows.ended
    if not windows:
        return None
    return ReplayReport(
        windows=ended,
        left_out=ended - len(windows),
        untouched=fmean(window.untouched for window in windows),
        served=fmean(window.served for window in windows),
        worst_untouched=max(window.untouched for window in windows),
        worst_served=max(window.served for window in windows),
        moves_per_layer=moves / options.layers / ended,
        by_window=tuple(windows),
    )


def _fault(ledger: FleetState, began: float, struck: InjectedFault, applied: list[Switch]) -> FaultReport:
    served = _first_after(struck.at, ledger.served_at)
    flipped = _first_after(struck.at, [switch.flipped_at for switch in applied])
    return FaultReport(struck.fault, struck.at - began, served, flipped)


def _first_after(at: float, times: list[float]) -> float | None:
    later = [time - at for time in times if time > at]
    return min(later, default=None)
