"""The report that `trimtab simulate` prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from trimtab_tools.cli import json_output
from trimtab_tools.cli.tables import counted, table

if TYPE_CHECKING:
    from trimtab_tools.simulate.replay_report import ReplayReport
    from trimtab_tools.simulate.report import Report


def as_text(report: Report) -> str:
    """The report as text, for people."""
    wrong = f"{report.wrong} wrong" if report.wrong else "none wrong"
    moved = f"{report.moved_bytes / 1e6:.1f} MB of weights moved"
    lines = [
        f"{report.seconds:.1f} s, {report.steps} steps, {report.tokens} tokens, {wrong}",
        *(f"wrong: {example}" for example in report.examples[:10]),
        *_replayed(report),
        f"switches: {report.accepted} accepted, {report.applied} applied by all, {moved}",
        f"given up: {report.discarded}; groups: {report.groups}",
    ]
    if report.decisions:
        lines.append(f"decisions: {decisions(report.decisions)}")
    if report.switch_seconds:
        lines.append(f"from first accepted to last flipped: {_spread(report.switch_seconds)}")
    if report.target_seconds:
        lines.append(f"from asked for to served by all: {_spread(report.target_seconds)}")
    lines += [f"alarm: {alarm}" for alarm in report.alarms]
    lines += [f"complaint: {complaint}" for complaint in report.complaints]
    lines += [f"cannot be read: {reason}" for reason in report.unreadable]
    if report.verdict is None:
        lines.append("history: not checked" if report.unreadable else "history: none")
    else:
        violations = report.verdict.violations
        number = counted(len(violations), "violation")
        lines.append(f"history: {report.verdict.events} events, {number}")
        lines += map(str, violations)
    lines.append(f"trouble: {report.trouble}" if report.trouble else "at rest")
    return "\n".join(lines) + "\n" + (f"\n{faults(report)}" if report.faults else "")


def _replayed(report: Report) -> list[str]:
    replayed = report.replayed
    if replayed is None:
        return []
    left_out = f", {replayed.left_out} of them not judged: a rank died" if replayed.left_out else ""
    lines = [
        f"replayed: {replayed.windows} windows{left_out}",
        *imbalances(replayed).splitlines(),
        f"moves: {report.moves} experts, {replayed.moves_per_layer:.2f} a layer and window",
    ]
    if replayed.shadow_moves is not None:
        per_layer = f"{replayed.shadow_moves_per_layer:.2f} a layer and window"
        lines.append(f"moves in shadow: {replayed.shadow_moves} experts, {per_layer}")
    if replayed.no_static_plan:
        lines.append(f"no static plan: {replayed.no_static_plan}")
    return lines


def imbalances(replayed: ReplayReport) -> str:
    """A table of how balanced the windows were, and how they would have been else."""
    rows = [
        ("no redundancy", replayed.no_redundancy, replayed.worst_no_redundancy),
        ("static plan", replayed.static_plan, replayed.worst_static_plan),
        ("served", replayed.served, replayed.worst_served),
        ("shadow", replayed.shadow, replayed.worst_shadow),
    ]
    header = ["imbalance", "mean over windows", "worst window"]
    return table(
        header,
        [
            [name, f"{mean:.3f}", f"{worst:.3f}"]
            for name, mean, worst in rows
            if mean is not None and worst is not None
        ],
    )


def decisions(number: Mapping[str, int]) -> str:
    """The number of decisions by reason, the most frequent first."""
    ordered = sorted(number.items(), key=lambda each: -each[1])
    return ", ".join(f"{count} {reason}" for reason, count in ordered)


def faults(report: Report) -> str:
    """A table of the faults, and of what followed them."""
    header = ["fault", "at", "steps again after", "next flip after"]
    rows = [
        [each.fault, f"{each.at:.2f} s", _after(each.served_after), _after(each.flipped_after)]
        for each in report.faults
    ]
    return table(header, rows)


def _after(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.3f} s"


def _spread(ascending: tuple[float, ...]) -> str:
    half, most = ascending[len(ascending) // 2], ascending[-1]
    return f"median {half * 1e3:.1f} ms, longest {most * 1e3:.1f} ms, of {len(ascending)}"


def as_json(report: Report) -> str:
    """The report as JSON, for scripts."""
    return json_output.as_json({"ok": report.ok, **json_output.as_document(report)})
