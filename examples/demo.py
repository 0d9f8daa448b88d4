"""Replay real expert loads on a group of worker processes that a server keeps balanced.

The demo starts `trimtab-server` and eight workers. Each worker is a rank of an expert-parallel
group: it holds the weights of its experts, routes tokens by its own maps, and reports what its
slots process. The server moves experts as the loads shift, and all ranks switch at the same step.
Meanwhile the demo kills a worker, and later the server.
"""

from __future__ import annotations

import argparse
import signal
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from trimtab_client import TrimtabError
from trimtab_tools.cli.fleet_progress import progress
from trimtab_tools.cli.fleet_report import as_json, decisions, faults, imbalances
from trimtab_tools.cli.simulate import parse_windows
from trimtab_tools.simulate.faults import parse_fault
from trimtab_tools.simulate.fleet import Fleet
from trimtab_tools.simulate.options import FleetOptions
from trimtab_tools.simulate.replay_report import ReplayReport
from trimtab_tools.simulate.report import Report
from trimtab_tools.simulate.scenario import Scenario
from trimtab_tools.simulate.scenario_runner import run_scenario

TRACES = Path(__file__).parent / "traces"
SLOTS = {"esft_dsv2lite": 80, "gptoss20b_phases": 40, "gptoss20b_mixed": 40}
ROWS = 16
METRICS = ("trimtab_decisions_total", "trimtab_switches_total", "trimtab_reports_total")
LEGEND = """
one slot   heaviest GPU / mean GPU, mean over layers, if each expert had one slot: no redundancy
served     heaviest GPU / mean GPU, mean over layers, by the tokens that each GPU has processed
switches   switches from one placement to the next so far, each by all ranks at the same step
moved      expert weights that have moved to another GPU so far
"""


def main() -> int:
    """Run the demo; returns its exit code."""
    # End as with Ctrl-C, so that no process is left behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    arguments = parse_arguments()
    try:
        options = options_of(arguments)
        fleet, scenario = fleet_of(arguments, options), scenario_of(arguments, options)
        report, metrics = run(fleet, scenario, arguments)
    except (TrimtabError, OSError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    if arguments.json:
        print(as_json(report), end="")
    else:
        print(summary(report, options))
        print(f"\n{metrics}")
    return 0 if is_right(report, arguments) else 1


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument(
        "--trace",
        default="esft_dsv2lite",
        help=f"what to replay: one of {', '.join(SLOTS)}, or an .npz file (default: %(default)s)",
    )
    parser.add_argument(
        "--windows", metavar="A:B", type=parse_windows, help="windows A to B - 1 only"
    )
    parser.add_argument("--ranks", metavar="N", type=int, default=8, help="worker processes")
    parser.add_argument("--slots", metavar="N", type=int, help="slots of a layer, over all ranks")
    parser.add_argument("--layers", metavar="N", type=int, default=0, help="layers of the trace")
    parser.add_argument("--steps", metavar="N", type=int, default=16, help="steps of a window")
    parser.add_argument(
        "--step-seconds", metavar="S", type=float, default=0.03, help="shortest time of a step"
    )
    parser.add_argument(
        "--balance",
        choices=("active", "shadow"),
        default="active",
        help="shadow: the server logs its decisions, and moves nothing",
    )
    parser.add_argument(
        "--fault",
        metavar="FAULT",
        action="append",
        help="a fault, as in `trimtab simulate --help`; none for no fault (default: kill a worker, "
        "and later the server)",
    )
    parser.add_argument("--server", metavar="ADDRESS", help="use this server instead of a new one")
    parser.add_argument("--metrics", metavar="ADDRESS", help="metrics address of --server")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    return parser.parse_args()


def options_of(arguments: argparse.Namespace) -> FleetOptions:
    """The options of the fleet."""
    named = TRACES / f"{arguments.trace}.npz"
    return FleetOptions(
        ranks=arguments.ranks,
        layers=arguments.layers,
        slots=SLOTS.get(arguments.trace, 0) if arguments.slots is None else arguments.slots,
        trace=named if named.exists() else Path(arguments.trace),
        windows=arguments.windows,
        steps_per_window=arguments.steps,
        step_seconds=arguments.step_seconds,
    )


def fleet_of(arguments: argparse.Namespace, options: FleetOptions) -> Fleet:
    """The server and its ranks, not yet started."""
    flags = ("--metrics-listen", "127.0.0.1:0", "--offer-seconds", "10")
    return Fleet(options, server=arguments.server, balance=arguments.balance, server_flags=flags)


def scenario_of(arguments: argparse.Namespace, options: FleetOptions) -> Scenario:
    """The faults, and when they happen."""
    windows, words = options.num_windows, arguments.fault
    if words is None:
        words = [f"kill-rank:{min(3, options.ranks - 1)}@w{windows * 5 // 16}"]
        # Early enough for the server to be back before the load shifts for the last time.
        words += [] if arguments.server else [f"kill-server@w{windows * 9 // 16}+1"]
    words = [each for each in words if each != "none"]
    faults = tuple(parse_fault(each, options.ranks, windows) for each in words)
    return Scenario(plan="balance", faults=faults)


def run(fleet: Fleet, scenario: Scenario, arguments: argparse.Namespace) -> tuple[Report, str]:
    """Replay the trace and show the progress; returns the report, and a few metrics."""
    if arguments.json:
        with fleet, progress(fleet):
            return fleet.finish(trouble=run_scenario(fleet, scenario)), ""
    options = fleet.options
    server = arguments.server or "a server"
    print(
        f"{options.num_windows} windows of {arguments.trace}, {options.layers} layers of "
        f"{options.experts} experts\nin {options.slots} slots on {options.ranks} GPUs: "
        f"{options.ranks} workers start, on {server}\n{LEGEND}",
        flush=True,
    )
    with fleet:
        with progress(fleet, News(fleet).since):
            trouble = run_scenario(fleet, scenario)
        address = arguments.metrics if arguments.server else own_metrics(fleet)
        metrics = metrics_at(address or "")
        return fleet.finish(trouble=trouble), metrics


def own_metrics(fleet: Fleet) -> str:
    """The metrics address of the demo's own server, which may still be starting again."""
    server = fleet.own_server()
    fleet.state.wait_or_none(lambda: server.is_ready or None, fleet.patience)
    return server.metrics


class News:
    """The rows of the table as windows are replayed, and what happens in between.

    Args:
        fleet: that replays them.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._traffic = traffic_of(fleet.options)
        self._shown = self._faults = 0
        self._groups = 1
        self._server_is_back = True

    def since(self) -> Iterator[str]:
        """The lines since the last call."""
        ended, windows = self._fleet.state.windows.ended, self._fleet.options.num_windows
        every = max(1, windows // ROWS)
        while ended >= (end := min(self._shown + every, windows)) > self._shown:
            if not self._shown:
                yield row("windows", "traffic", "one slot", "served", "switches", "moved")
            yield self._row(self._shown, end)
            self._shown = end
        yield from (f"{ended:<7}  * {what}" for what in self._happened())

    def _row(self, first: int, end: int) -> str:
        state = self._fleet.state
        complete = [each.window for each in state.windows.complete]
        judged = [each for each in complete if first <= each.number < end]
        one_slot, served = (
            f"{np.mean(values):.3f}" if values else "-"
            for values in ([w.no_redundancy for w in judged], [w.served for w in judged])
        )
        switches = len(state.switches_completed())
        figures = (one_slot, served, str(switches), str(state.total().moves))
        name = f"{first}-{end - 1}" if end - 1 > first else str(first)
        return row(name, self._traffic[first], *figures)

    def _happened(self) -> Iterator[str]:
        state = self._fleet.state
        for each in state.faults[self._faults :]:
            self._faults += 1
            self._server_is_back &= each.fault != "kill-server"
            yield each.fault
        if len(state.serving_since) > self._groups:
            self._groups = len(state.serving_since)
            yield "the group has formed again, and takes steps"
        if not self._server_is_back and self._fleet.own_server().is_ready:
            self._server_is_back = True
            yield "the server is back"


def row(name: str, traffic: str, *numbers: str) -> str:
    """One line of the table: two columns to the left, numbers to the right."""
    shown = "".join(f"  {number:>9}" for number in numbers)
    return f"{name:7}  {traffic:18}{shown}"


def traffic_of(options: FleetOptions) -> list[str]:
    """The kind of traffic of most tokens of each window, if the trace has it."""
    first, end = options.windows or (0, 0)
    with np.load(options.trace or "") as file:
        if "window_domain" in file:
            labels, index_T = file["domains"], file["window_domain"]
        elif "window_phase_tokens" in file:
            labels, index_T = file["phases"], file["window_phase_tokens"].argmax(1)
        else:
            return [""] * (end - first)
    return [str(labels[index]) for index in index_T[first:end]]


def summary(report: Report, options: FleetOptions) -> str:
    """The report as text."""
    wrong = report.wrong or "none"
    lines = [
        "",
        *([] if report.replayed is None else balance_lines(report, report.replayed, options)),
        f"decisions  {decisions(report.decisions) or 'none'}",
        f"tokens     {report.tokens} computed where each rank's own maps said: {wrong} wrong",
        f"history    {judged(report)}",
        *(f"wrong      {each}" for each in report.examples[:10]),
        *(f"alarm      {each}" for each in report.alarms),
        *(f"unreadable {each}" for each in report.unreadable),
        *(f"broken     {each}" for each in (report.verdict.violations if report.verdict else ())),
        *([f"trouble    {report.trouble}"] if report.trouble else []),
    ]
    table = f"\n\n{faults(report).rstrip()}" if report.faults else ""
    return "\n".join(lines) + table


def balance_lines(report: Report, replayed: ReplayReport, options: FleetOptions) -> list[str]:
    """How balanced the fleet was, and how many moves it took."""
    left_out = f", {replayed.left_out} not judged: a rank died" if replayed.left_out else ""
    less = 1 - replayed.served / replayed.no_redundancy
    change = f"{abs(less):.0%} {'less' if less >= 0 else 'longer'}"
    a_layer = f"{replayed.moves_per_layer:.2f} a layer and window"
    lines = [
        f"replayed   {replayed.windows} windows in {report.seconds:.0f} s{left_out}",
        *(f"           {line}" for line in imbalances(replayed).splitlines()),
        f"           so a step waits {change} for the busiest GPU than without redundancy",
        f"moves      {report.moves} expert weights, {a_layer},",
        f"           in {report.applied} switches, each by all {options.ranks} ranks at one step",
    ]
    if replayed.shadow_moves is not None:
        lines.append(f"in shadow  {replayed.shadow_moves} expert weights would have moved")
    return lines


def judged(report: Report) -> str:
    """The verdict of the history checker."""
    if report.verdict is None and report.unreadable:
        return "not checked: it cannot be read"
    if report.verdict is None:
        return "not checked: the server is not the demo's own"
    broken = len(report.verdict.violations) or "none"
    return f"{report.verdict.events} events checked by the rules of PROTOCOL.md: {broken} broken"


def metrics_at(address: str) -> str:
    """A few metrics of the server, which count from its last start."""
    if not address:
        return "metrics    none"
    try:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as page:
            lines = page.read().decode().splitlines()
    except OSError as error:
        return f"metrics    none: {error}"
    found = [line for line in lines if line.startswith(METRICS) and not line.endswith(" 0.0")]
    return "\n".join([f"from http://{address}/metrics, since the server's last start:", *found])


def is_right(report: Report, arguments: argparse.Namespace) -> bool:
    """Whether nothing was wrong, and the server moved experts if it could.

    How much that gains depends on the windows: in a few of them, two deaths are dear.
    """
    if not report.ok or report.replayed is None:
        return False
    return report.moves > 0 or arguments.balance != "active" or arguments.server is not None


if __name__ == "__main__":
    sys.exit(main())
