"""The report of a run: what the fleet has done, and what was wrong."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from trimtab_tools.history import Report as Verdict
from trimtab_tools.simulate.fleet_state import FleetState, InjectedFault, Switch
from trimtab_tools.simulate.history_tail import HistoryTail
from trimtab_tools.simulate.options import FleetOptions
from trimtab_tools.simulate.windows import Window


@dataclass(frozen=True)
class FaultReport:
    """What followed a fault.

    Attributes:
        fault: which one.
        at: when, in seconds since the fleet began.
        served_after: seconds until the group that it broke had formed again and taken a step;
            None if no group formed after it.
        flipped_after: seconds until all ranks had flipped once more; None if they did not.
    """

    fault: str
    at: float
    served_after: float | None
    flipped_after: float | None


@dataclass(frozen=True)
class ReplayReport:
    """How balanced the fleet was while it replayed a trace. Imbalance is that of a `Window`.

    Attributes:
        windows: number of windows that were replayed to their end.
        left_out: number of these that are not judged, since a rank died and its counts were lost.
        untouched: mean imbalance of the other windows, had no expert moved.
        served: mean imbalance of the other windows as they were served.
        worst_untouched: highest imbalance of a window, had no expert moved.
        worst_served: highest imbalance of a window as it was served.
        moves_per_layer: expert weights that were new to a GPU, per layer and window.
        by_window: all windows that are judged.
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
class Report:
    """The report of a run.

    Attributes:
        seconds: from the first start to the end.
        steps: number of steps that the ranks have done.
        tokens: number of tokens that came back to their ranks. Of a rank that was killed, the
            last tenth of a second is missing.
        wrong: number of these whose value is not what their expert gives.
        examples: of wrong tokens, at most 100.
        moved_bytes: bytes of weights that went from rank to rank, aborted switches included.
        moves: number of expert weights that flips have brought to a GPU.
        groups: number of groups that formed: 1, and one more after each death.
        accepted: number of switches that at least one rank has begun to prepare.
        applied: number of switches to which all ranks have flipped.
        discarded: number of switches that a rank has given up, after an abort or in a new group.
        switch_seconds: for each applied switch, from the first rank that accepted it to the
            last that flipped; ascending.
        target_seconds: for each placement that was asked for, until all ranks served by it,
            which may take several switches; ascending.
        faults: that have happened.
        complaints: breaches of the protocol that ranks have reported, and that had no effect.
        alarms: of the fleet's own server.
        trouble: why the fleet could not go on or did not come to rest; empty if it did.
        verdict: of the history checker; None if there is no history.
        decisions: number of the server's decisions in the history, by their reason.
        replayed: None without a trace, and if no window of it can be judged.
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
        """Whether no token was wrong, no rule was violated, and the fleet came to rest."""
        violated = self.verdict is not None and self.verdict.violations
        return not (self.wrong or self.trouble or violated)


def make_report(
    state: FleetState,
    options: FleetOptions,
    history: HistoryTail | None,
    alarms: Sequence[str],
    trouble: str,
) -> Report:
    """The report of a run that ends now."""
    total = state.total()
    switches = list(state.switches.values())
    applied = state.switches_completed()
    decided = [] if history is None else history.lines("decided")
    return Report(
        seconds=time.monotonic() - state.began,
        steps=total.step + 1,
        tokens=total.tokens,
        wrong=total.wrong,
        examples=tuple(state.examples),
        moved_bytes=total.moved,
        moves=total.moves,
        groups=state.groups_formed,
        accepted=len(switches),
        applied=len(applied),
        discarded=sum(switch.discarded for switch in switches),
        switch_seconds=tuple(sorted(each.flipped_at - each.accepted_at for each in applied)),
        target_seconds=tuple(sorted(state.target_seconds)),
        faults=tuple(_fault(state, fault, applied) for fault in state.faults),
        complaints=tuple(state.complaints),
        alarms=tuple(alarms),
        trouble=trouble,
        verdict=None if history is None else history.verdict(complete=not trouble),
        decisions=dict(Counter(line["reason"] for line in decided)),
        replayed=_replayed(state, options, total.moves),
    )


def _replayed(state: FleetState, options: FleetOptions, moves: int) -> ReplayReport | None:
    windows, ended = state.windows.complete, state.windows.ended
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


def _fault(state: FleetState, fault: InjectedFault, applied: list[Switch]) -> FaultReport:
    served = _first_after(fault.at, state.serving_since)
    flipped = _first_after(fault.at, [switch.flipped_at for switch in applied])
    return FaultReport(fault.fault, fault.at - state.began, served, flipped)


def _first_after(at: float, times: list[float]) -> float | None:
    return min((each - at for each in times if each > at), default=None)
