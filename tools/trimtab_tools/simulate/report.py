"""The report of a run: what the fleet has done, and what was wrong."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from trimtab_tools.history import Report as Verdict
from trimtab_tools.simulate.errors import FleetError
from trimtab_tools.simulate.fleet_state import FleetState, InjectedFault, Switch
from trimtab_tools.simulate.history_tail import HistoryTail, Line
from trimtab_tools.simulate.options import FleetOptions
from trimtab_tools.simulate.replay_report import ReplayReport, replay_report
from trimtab_tools.simulate.shadow import ShadowPlacements, shadow_placements

_T = TypeVar("_T")


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
        unreadable: what could not be read for this report, and why. Other parts are not affected.
        trouble: why the fleet could not go on or did not come to rest; empty if it did.
        verdict: of the history checker; None if there is no history, or it cannot be read.
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
    unreadable: tuple[str, ...]
    trouble: str
    verdict: Verdict | None
    decisions: Mapping[str, int]
    replayed: ReplayReport | None

    @property
    def ok(self) -> bool:
        """Whether no token was wrong, no rule was violated, and the fleet came to rest.

        False too if that could not be found out.
        """
        violated = self.verdict is not None and self.verdict.violations
        return not (self.wrong or self.trouble or self.unreadable or violated)


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
    read = _read(history, options.deployment, complete=not trouble)
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
        unreadable=read.unreadable,
        trouble=trouble,
        verdict=read.verdict,
        decisions=read.decisions,
        replayed=replay_report(state.windows, options, total.moves, read.shadow),
    )


class _History(NamedTuple):
    """What the report takes from the history; see `Report`."""

    verdict: Verdict | None = None
    decisions: Mapping[str, int] = {}
    shadow: ShadowPlacements | None = None
    unreadable: tuple[str, ...] = ()


def _read(history: HistoryTail | None, deployment: str, *, complete: bool) -> _History:
    """Read what can be read of the history: the report must come, whatever is wrong with it.

    The server of --server may write lines of other deployments, too.
    """
    if history is None:
        return _History()
    unreadable: list[str] = []

    def tried(read: Callable[[], _T], default: _T) -> _T:
        try:
            return read()
        except FleetError as error:
            unreadable.append(f"history: {error}")
            return default

    verdict = tried(lambda: history.verdict(complete=complete), None)
    decided = tried(lambda: history.lines("decided", deployment=deployment), list[Line]())
    shadow = tried(lambda: shadow_placements(history.lines("shadow", deployment=deployment)), None)
    decisions = Counter(str(line.get("reason")) for line in decided)
    return _History(verdict, dict(decisions), shadow, tuple(dict.fromkeys(unreadable)))


def _fault(state: FleetState, fault: InjectedFault, applied: list[Switch]) -> FaultReport:
    served = _first_after(fault.at, state.serving_since)
    flipped = _first_after(fault.at, [switch.flipped_at for switch in applied])
    return FaultReport(fault.fault, fault.at - state.began, served, flipped)


def _first_after(at: float, times: list[float]) -> float | None:
    return min((each - at for each in times if each > at), default=None)
