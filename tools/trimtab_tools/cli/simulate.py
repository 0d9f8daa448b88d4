"""`trimtab simulate`: a fleet of real processes, with faults on demand."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from trimtab_client.exceptions import InvalidArgumentError
from trimtab_tools.cli.command import add_command, add_option
from trimtab_tools.cli.errors import UsageError
from trimtab_tools.cli.files import add_format, refuse_standard
from trimtab_tools.cli.fleet_progress import progress
from trimtab_tools.cli.fleet_report import as_json, as_text
from trimtab_tools.simulate.faults import GRAMMAR, parse_fault
from trimtab_tools.simulate.options import FleetOptions
from trimtab_tools.simulate.scenario import Balance, Plan, Scenario, check_it_ends

if TYPE_CHECKING:
    from types import FrameType

    from trimtab_tools.simulate.fleet import Fleet

_DESCRIPTION = """\
Starts a server and a group of worker processes. Each worker holds the weights of small experts,
moves them as placements change, and runs steps: it sends its tokens to their experts, on any rank,
by its own maps, and compares the results with the right ones. So a wrong flip shows as wrong
tokens. The fleet then switches from placement to placement, or replays real loads while the
server balances them, and has the faults that you ask for.
"""

_EPILOG = f"""\
{GRAMMAR}
examples:
  trimtab simulate
  trimtab simulate --ranks 4 --transfer collective --switches 20
  trimtab simulate --fault kill-rank:2@armed --fault kill-server@2s+1
  trimtab simulate --seconds 30 --plan server --history run.jsonl --json
  trimtab simulate --trace loads.npz --slots 80 --fault kill-rank:3@w20 --fault kill-server@w40

With --trace the report shows imbalance, heaviest GPU / mean GPU, mean over layers, of:

  no redundancy  each expert in one slot, in order: experts / ranks on each GPU, or one more on some
                 if the ranks do not divide the experts
  static plan    a full plan, made once for the mean load of all windows that are replayed, so that
                 it knows what is still to come; `trimtab place --local` makes the same
  served         the tokens that the GPUs have really processed
  shadow         with --balance shadow: the placements to which the server would have moved, each
                 from the step after the last that its decision knew of, at no cost; from the
                 history, so that with --server it takes --history

For all but served, the replicas of an expert share its tokens evenly.

While it runs, the progress is on standard error: a line that changes on a terminal; elsewhere, or
with NO_COLOR or TERM=dumb, a line each 10 seconds and for each fault.

The exit code is 0 if no token was wrong, no rule of the protocol was violated, and the fleet came
to rest at the end; else 1, also if the history cannot be read.
"""

_INTERRUPTED = 130
_QUICK_REPORTS = ("--report-seconds", "0.1")


def add_to(commands: Any) -> None:
    """Add the command."""
    summary = "run a fleet of worker processes, with switches and faults"
    parser = add_command(commands, "simulate", run, _DESCRIPTION, _EPILOG, summary=summary)
    fleet = parser.add_argument_group("fleet")
    _add_sizes(fleet)
    _add_files_and_server(fleet)
    _add_scenario(parser.add_argument_group("scenario"))
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def run(arguments: argparse.Namespace) -> int:
    """Run the scenario and print the report; returns 0 if nothing was wrong."""
    # Imported here, since no other command needs what starts processes.
    from trimtab_tools.simulate.fleet import Fleet
    from trimtab_tools.simulate.scenario_runner import run_scenario
    from trimtab_tools.simulate.trace import MAX_TOKENS

    refuse_standard(arguments.trace, "--trace", "each rank reads it: name a file")
    refuse_standard(arguments.history, "--history", "several processes write it: name a file")
    try:
        options = _options(arguments)
        scenario = _scenario(arguments, options)
        fleet = Fleet(
            options,
            server=arguments.server,
            history=arguments.history,
            balance=arguments.balance or "active" if scenario.plan == "balance" else None,
            server_flags=("--offer-seconds", str(arguments.offer_seconds), *_QUICK_REPORTS),
            patience=arguments.patience,
        )
    except InvalidArgumentError as error:
        raise UsageError(str(error)) from error
    divisor = options.trace_divisor
    if divisor > 1:
        said = f"the counts of {options.trace} are divided by {divisor}, and rounded"
        sys.stderr.write(f"trimtab: {said}: more than {MAX_TOKENS} tokens would be in a window\n")
    try:
        with _interrupts_kept(fleet), progress(fleet), fleet:
            report = fleet.finish(trouble=run_scenario(fleet, scenario))
    except KeyboardInterrupt:
        sys.stderr.write("trimtab: interrupted\n")
        return _INTERRUPTED
    sys.stdout.write(as_json(report) if arguments.json else as_text(report))
    return 0 if report.ok else 1


@contextmanager
def _interrupts_kept(fleet: Fleet) -> Iterator[None]:
    """Record Ctrl-C in the fleet's state, for its next wait.

    Python drops a KeyboardInterrupt that is raised in a destructor or a callback, and the fleet
    would go on.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:
        yield  # The caller handles SIGINT in its own way.
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        fleet.state.interrupted = True
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _add_sizes(group: argparse._ArgumentGroup) -> None:
    defaults = FleetOptions()
    for name, default, about in (
        ("ranks", defaults.ranks, "worker processes, each with one GPU"),
        ("layers", 0, f"MoE layers (default: {defaults.layers}, or those of the trace)"),
        ("experts", 0, f"experts of a layer (default: {defaults.experts}, or those of the trace)"),
        ("slots", 0, "expert slots of a layer, over all ranks (default: one to spare on each)"),
        ("hidden", 0, "an expert is a float32 matrix [N, N] (default: 64, with a trace 8)"),
        ("tokens", 0, f"tokens of a rank in a layer and step (default: {defaults.tokens})"),
        ("steps-per-window", defaults.steps_per_window, "steps over which a window is spread"),
        ("barrier-every", defaults.barrier_every, "steps from one barrier to the next"),
        ("seed", defaults.seed, "seed of weights, tokens and random placements"),
    ):
        shown = f"{about} (default: {default})" if "default" not in about else about
        add_option(group, f"--{name}", "N", int, shown, default=default)
    about = "shortest time of a step (default: %(default)g)"
    add_option(group, "--step-seconds", "SECONDS", float, about, default=defaults.step_seconds)
    about = "how weights come into staging (default: %(default)s)"
    choices = "pull", "collective"
    group.add_argument("--transfer", choices=choices, default="pull", help=about)


def _add_files_and_server(group: argparse._ArgumentGroup) -> None:
    about = (
        "a file of loads to replay, [windows, layers, experts], as `trimtab place` reads it; it "
        "makes balance the default of --plan"
    )
    add_option(group, "--trace", "FILE", Path, about)
    add_format(group, of="--trace")
    about = "the windows of the trace to replay, from A to B - 1 (default: all)"
    add_option(group, "--windows", "A:B", parse_windows, about)
    about = "host:port of a server without TLS (default: the command starts one, and ends it)"
    add_option(group, "--server", "ADDRESS", str, about)
    about = (
        "time in which ranks must prepare an offer, for the server that the command starts "
        "(default: %(default)g)"
    )
    add_option(group, "--offer-seconds", "SECONDS", float, about, default=10.0)
    about = (
        "file for the history of the run, which `trimtab check-history` reads; with "
        "--server, the file to which that server writes: without it, no rules are checked"
    )
    add_option(group, "--history", "FILE", Path, about)


def _add_scenario(group: argparse._ArgumentGroup) -> None:
    defaults = Scenario()
    about = (
        "where to switch: to random placements; to what the server plans, when it is asked, "
        "from what the ranks have counted; or balance: the server is not asked, and decides by "
        "itself, until the trace has been replayed or --seconds are over (default: random)"
    )
    group.add_argument("--plan", choices=get_args(Plan), help=about)
    about = (
        "with --plan balance: whether the server moves experts, or only logs its decisions; not "
        "with --server, which does as its own policy says (default: active)"
    )
    group.add_argument("--balance", choices=get_args(Balance), help=about)
    about = "switch to at least N placements; not with --plan balance (default: %(default)s)"
    add_option(group, "--switches", "N", int, about, default=defaults.switches)
    about = "go on for at least this long (default: %(default)g)"
    add_option(group, "--seconds", "SECONDS", float, about, default=defaults.seconds)
    about = "longest wait for a server to start or a switch to be done (default: %(default)g)"
    add_option(group, "--patience", "SECONDS", float, about, default=60.0)
    about = "a fault to cause once; may be given several times (see below)"
    add_option(group, "--fault", "FAULT", str, about, action="append", default=[])


def _options(arguments: argparse.Namespace) -> FleetOptions:
    names = [field.name for field in fields(FleetOptions) if field.name != "deployment"]
    return FleetOptions(**{name: getattr(arguments, name) for name in names})


def _scenario(arguments: argparse.Namespace, options: FleetOptions) -> Scenario:
    ranks, windows = options.ranks, options.num_windows
    faults = tuple(parse_fault(words, ranks, windows) for words in arguments.fault)
    if arguments.server is not None and any(fault.rank is None for fault in faults):
        raise UsageError("--fault: the command does not kill or stop the server of --server")
    if arguments.server is not None and arguments.balance is not None:
        raise UsageError(
            "--balance: the server of --server does as its own policy says; change that with "
            "trimtab deployments update"
        )
    plan: Plan = arguments.plan or ("random" if options.trace is None else "balance")
    scenario = Scenario(
        switches=arguments.switches, seconds=arguments.seconds, plan=plan, faults=faults
    )
    check_it_ends(options, scenario)
    return scenario


def parse_windows(text: str) -> tuple[int, int]:
    """Parse a range of windows, such as 0:32."""
    first, _, end = text.partition(":")
    if not (first.isdecimal() and end.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not A:B, such as 0:32")
    return int(first), int(end)
