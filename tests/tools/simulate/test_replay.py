"""Fleets that replay a trace while the server balances them, with faults."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.tools.simulate.small import small_fleet
from trimtab_client import InvalidArgumentError
from trimtab_tools.cli.fleet_report import as_text
from trimtab_tools.simulate.fault_schedule import FaultSchedule
from trimtab_tools.simulate.faults import parse_fault
from trimtab_tools.simulate.fleet import Fleet
from trimtab_tools.simulate.fleet_state import FleetState
from trimtab_tools.simulate.history_tail import HistoryTail
from trimtab_tools.simulate.messages import WindowCounts
from trimtab_tools.simulate.options import FleetOptions
from trimtab_tools.simulate.report import make_report
from trimtab_tools.simulate.scenario import Scenario
from trimtab_tools.simulate.scenario_runner import run_scenario

ROOT = Path(__file__).parents[3]
WINDOWS = 24


def write_trace(folder: Path) -> Path:
    """A trace of which four ranks with three slots begin with all three hot experts on one."""
    load_TLE = np.full((WINDOWS, 3, 8), 20)
    load_TLE[:, :, 3:6] = 200
    np.savez(folder / "trace.npz", load=load_TLE)
    return folder / "trace.npz"


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.concurrent
def test_the_server_balances_a_trace_through_deaths(tmp_path: Path) -> None:
    sizes = ("--trace", str(write_trace(tmp_path)), "--ranks", "4", "--slots", "12")
    faults = ("--fault", "kill-rank:2@w3", "--fault", "kill-server@w8")
    history = tmp_path / "history.jsonl"

    flags = (*sizes, *faults, "--history", str(history), "--json")
    done = run(Path(sys.executable).with_name("trimtab"), "simulate", *flags)

    assert done.returncode == 0, done
    report = json.loads(done.stdout)
    assert (report["wrong"], report["trouble"], report["verdict"]["violations"]) == (0, "", [])
    assert report["groups"] == 2
    assert report["applied"] > 0
    # The fleet has paused the server, so that no switch is open when the ranks leave.
    assert len(HistoryTail(history).lines("operated", operation="pause")) == 1
    assert report["moves"] > 0
    # Decisions that move experts are in the history.
    assert {"improved", "replanned"} & set(report["decisions"])
    replayed = report["replayed"]
    assert replayed["windows"] == WINDOWS
    assert replayed["left_out"] in (0, 1), "the rank may have died between two windows"
    assert len(replayed["by_window"]) == WINDOWS - replayed["left_out"]
    assert replayed["moves_per_layer"] == report["moves"] / 3 / WINDOWS
    # By hand: with two experts each, a GPU has two of the three hot ones, 400 of 700.
    assert replayed["no_redundancy"] == pytest.approx(400 / 175)
    assert replayed["worst_no_redundancy"] == pytest.approx(400 / 175)
    # The load never changes, so that the best plan for its mean is the best for each window: two
    # hot experts have a replica, and 200 + 20 / 2 is a GPU's most, at least.
    assert 1.0 <= replayed["static_plan"] < 1.2
    assert replayed["worst_static_plan"] == pytest.approx(replayed["static_plan"])
    assert replayed["no_static_plan"] == ""
    assert replayed["by_window"][-1]["static_plan"] == pytest.approx(replayed["static_plan"])
    assert replayed["by_window"][-1]["served"] < 0.8 * replayed["no_redundancy"]
    assert replayed["served"] < replayed["worst_served"]
    assert (replayed["shadow"], replayed["shadow_moves"]) == (None, None)
    assert [each["fault"] for each in report["faults"]] == ["kill-rank:2", "kill-server"]
    assert report["faults"][0]["served_after"] > 0


@pytest.mark.concurrent
def test_shadow_mode_moves_nothing_and_a_fault_happens_when_its_window_begins(
    tmp_path: Path,
) -> None:
    trace = write_trace(tmp_path)
    options = FleetOptions(trace=trace, ranks=4, slots=12, windows=(0, 8), layers=1)
    fault = parse_fault("stop-rank:1@w5+0.2", 4, options.num_windows)
    with small_fleet(options, balance="shadow") as fleet:
        fleet.wait_in_force()
        with FaultSchedule(fleet, [fault]):
            fleet.wait("the fault", lambda: fleet.state.faults or None)
            step = fleet.state.total().step
        report = fleet.finish(trouble=run_scenario(fleet, Scenario(plan="balance")))

    assert report.ok, report
    assert (report.moves, report.accepted) == (0, 0)
    assert step >= 5 * 16 - 1
    assert report.replayed is not None
    assert report.replayed.windows == 8
    # Replicas take turns, so the balance is nearly that of even shares: by hand, the hot experts'
    # GPU has 100 + 200 + 200 of 700, and the mean is 175.
    replayed = report.replayed
    assert replayed.served == pytest.approx(500 / 175, rel=0.02)
    # What would have been served: until the first decision the same, and at last much less.
    assert replayed.worst_shadow is not None
    assert replayed.worst_shadow <= replayed.worst_served
    last = replayed.by_window[-1].shadow
    assert last is not None
    assert last < 0.6 * replayed.served
    shadow = [window.shadow for window in replayed.by_window]
    assert replayed.shadow == pytest.approx(np.mean(shadow))
    assert replayed.shadow_moves is not None
    assert replayed.shadow_moves > 0
    assert replayed.shadow_moves_per_layer == replayed.shadow_moves / 8
    shown = as_text(report)
    assert f"shadow                     {replayed.shadow:.3f}" in shown
    assert f"moves in shadow: {replayed.shadow_moves} experts, " in shown


def test_without_the_solver_the_report_says_why_it_has_no_static_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = FleetOptions(trace=write_trace(tmp_path), ranks=4, slots=12)
    state = FleetState(options)
    for rank in range(4):
        state.window_counted(rank, WindowCounts(0, 16, options.loads()[0]))
    monkeypatch.setitem(sys.modules, "trimtab_server.solver", None)

    report = make_report(state, options, None, [], "")

    assert report.ok
    assert report.replayed is not None
    assert (report.replayed.static_plan, report.replayed.served) == (None, 1.0)
    shown = as_text(report)
    assert "no static plan: the solver is not installed: pip install 'trimtab-tools" in shown
    assert "\nserved                     1.000         1.000\n" in shown
    assert "\nstatic plan" not in shown
    assert "history: none\n" in shown


@pytest.mark.concurrent
def test_the_demo_shows_the_progress_and_the_result() -> None:
    flags = ("--windows", "12:20", "--ranks", "4", "--layers", "2", "--step-seconds", "0.01")

    done = run(sys.executable, ROOT / "examples" / "demo.py", *flags)

    assert (done.returncode, done.stderr) == (0, "")
    for shown in (
        "8 windows of esft_dsv2lite, 2 layers of 64 experts",
        "* kill-rank:3",
        "* the group has formed again",
        "* kill-server",
        "replayed   8 windows",
        "no redundancy",
        "static plan",
        "own maps said: none wrong",
        "rules of PROTOCOL.md: none broken",
        "since the server's last start:",
    ):
        assert shown in done.stdout, done.stdout


def test_a_plan_that_does_not_fit_the_fleet_or_has_no_end_is_refused():
    options = FleetOptions(ranks=2)

    with pytest.raises(InvalidArgumentError, match="seconds: 0 has no end"):
        run_scenario(Fleet(options, balance="active"), Scenario(plan="balance"))
    with pytest.raises(
        InvalidArgumentError, match="plan: 'random' of a fleet whose balance is 'ac"
    ):
        run_scenario(Fleet(options, balance="active"), Scenario())
    with pytest.raises(InvalidArgumentError, match="balance: 'on' is not one of"):
        Fleet(options, balance="on")
