"""What a run has come to."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab_client.history import Report as Verdict
from trimtab_client.simulate.ledger import Ledger, Struck, Switch


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
class Report:
    """What a run has come to.

    Attributes:
        seconds: from the first start to the end.
        steps: that the ranks have done.
        tokens: that came back to their ranks, but for the last tenth of a second of a rank that
            was killed.
        wrong: of these, with another value than their expert gives.
        examples: of wrong ones, at most 100.
        moved_bytes: of weights, from rank to rank.
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
    """

    seconds: float
    steps: int
    tokens: int
    wrong: int
    examples: tuple[str, ...]
    moved_bytes: int
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

    @property
    def ok(self) -> bool:
        """Whether nothing was wrong: no token, no violation, and it came to rest."""
        violated = self.verdict is not None and self.verdict.violations
        return not (self.wrong or self.trouble or violated)


def make_report(
    ledger: Ledger,
    began: float,
    ended: float,
    target_seconds: list[float],
    alarms: list[str],
    trouble: str,
    verdict: Verdict | None,
) -> Report:
    """Sum up what a ledger says. Times are of its clock."""
    total = ledger.total()
    switches = list(ledger.switches.values())
    applied = [switch for switch in switches if switch.is_whole]
    return Report(
        seconds=ended - began,
        steps=total.step + 1,
        tokens=total.tokens,
        wrong=total.wrong,
        examples=tuple(ledger.examples),
        moved_bytes=total.moved,
        groups=ledger.groups,
        accepted=len(switches),
        applied=len(applied),
        discarded=sum(switch.discarded for switch in switches),
        switch_seconds=tuple(sorted(each.flipped_at - each.accepted_at for each in applied)),
        target_seconds=tuple(sorted(target_seconds)),
        faults=tuple(_fault(ledger, began, struck, applied) for struck in ledger.faults),
        complaints=tuple(ledger.complaints),
        alarms=tuple(alarms),
        trouble=trouble,
        verdict=verdict,
    )


def _fault(ledger: Ledger, began: float, struck: Struck, applied: list[Switch]) -> FaultReport:
    served = _first_after(struck.at, ledger.served_at)
    flipped = _first_after(struck.at, [switch.flipped_at for switch in applied])
    return FaultReport(struck.fault, struck.at - began, served, flipped)


def _first_after(at: float, times: list[float]) -> float | None:
    later = [time - at for time in times if time > at]
    return min(later, default=None)
