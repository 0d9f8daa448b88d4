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
from trimtab_tools.cli.errors import UsageError
from trimtab_tools.cli.fleet_progress import progress
from trimtab_tools.cli.fleet_report import as_json, as_text
from trimtab_tools.simulate.faults import GRAMMAR, parse_fault
from trimtab_tools.simulate.options import FleetOptions
from trimtab_tools.simulate.scenario import Balance, Plan, Scenario, check_end

if TYPE_CHECKING:
    from types import FrameType

    from trimtab_tools.simulate.fleet import Fleet

_DESCRIPTION = """\
Starts a server and a group of worker processes. Each holds the weights of small experts,
moves them as placements change, and takes steps: its tokens go to their experts by its own
maps, on whichever rank, and what comes back is compared with what they should give. So a
wrong flip shows as wrong tokens. Then it switches from placement to placement, or replays real
loads which the server balances by itself, while things go wrong as you ask.
"""

_EPILOG = f"""\
{GRAMMAR}
examples:
  trimtab simulate
  trimtab simulate --ranks 4 --transfer collective --switches 20
  trimtab simulate --fault kill-rank:2@armed --fault kill-server@2s+1
  trimtab simulate --seconds 30 --plan server --history run.jsonl --json
  trimtab simulate --trace loads.npz --slots 80 --fault kill-rank:3@w20 --fault kill-server@w40

The exit code is 0 if no token was wrong, no rule of the protocol was broken, and all came
to rest at the end; else 1.
"""

_INTERRUPTED = 130


def add_to(commands: Any, _server: str) -> argparse.ArgumentParser:
    """Add the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "simulate",
        help="run a fleet of worker processes, switches and faults",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_fleet(parser)
    _add_scenario(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Play the scenario and print what has come of it; 0 if nothing was wrong."""
    # Here, since other commands can do without: it loads what starts processes.
    from trimtab_tools.simulate.scenario_runner import play

    try:
        options = _options(arguments)
        scenario = _scenario(arguments, options)
        fleet = _fleet(arguments, options, scenario.plan)
    except InvalidArgumentError as error:
        raise UsageError(str(error)) from error
    try:
        with _interrupts_kept(fleet), fleet, progress(fleet):
            report = play(fleet, scenario)
    except KeyboardInterrupt:
        sys.stderr.write("trimtab: interrupted\n")
        return _INTERRUPTED
    sys.stdout.write(as_json(report) if arguments.json else as_text(report))
    return 0 if report.ok else 1


@contextmanager
def _interrupts_kept(fleet: Fleet) -> Iterator[None]:
    """Remember Ctrl-C: where Python runs a destructor or a callback, it drops what is raised."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:
        yield  # Whoever runs this has decided otherwise.
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        fleet.ledger.interrupted = True
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _add_fleet(parser: argparse.ArgumentParser) -> None:
    group, defaults = parser.add_argument_group("fleet"), FleetOptions()
    for name, default, what in (
        ("ranks", defaults.ranks, "worker processes, each with one GPU"),
        ("layers", 0, f"MoE layers (default: {defaults.layers}, or those of the trace)"),
        ("experts", 0, f"of a layer (default: {defaults.experts}, or those of the trace)"),
        ("slots", 0, "expert slots of a layer, over all ranks (default: one to spare on each)"),
        ("hidden", 0, "an expert is a float32 matrix [N, N] (default: 64, with a trace 8)"),
        ("tokens", 0, f"that a rank routes in a layer and step (default: {defaults.tokens})"),
        ("steps-per-window", defaults.steps_per_window, "over which a window is spread"),
        ("barrier-every", defaults.barrier_every, "steps from one barrier to the next"),
        ("seed", defaults.seed, "of weights, tokens and random placements"),
    ):
        shown = f"{what} (default: {default})" if "default" not in what else what
        group.add_argument(f"--{name}", metavar="N", type=int, default=default, help=shown)
    group.add_argument(
        "--trace",
        metavar="FILE",
        type=Path,
        help="an .npz file of loads to replay, `load` int64 [windows, layers, experts]; with it, "
        "--plan is balance unless it is given",
    )
    group.add_argument(
        "--windows",
        metavar="A:B",
        type=parse_windows,
        help="which windows of the trace, without B (default: all)",
    )
    group.add_argument(
        "--step-seconds",
        metavar="SECONDS",
        type=float,
        default=defaults.step_seconds,
        help="shortest time of a step (default: %(default)g)",
    )
    group.add_argument(
        "--transfer",
        choices=("pull", "collective"),
        default="pull",
        help="how weights come into staging (default: %(default)s)",
    )
    group.add_argument(
        "--server",
        metavar="ADDRESS",
        help="host:port of a server without TLS (default: one is started, and ends with the run)",
    )
    group.add_argument(
        "--offer-seconds",
        metavar="SECONDS",
        type=float,
        default=10.0,
        help="time that ranks have to prepare an offer, of the server that is started "
        "(default: %(default)g)",
    )
    group.add_argument(
        "--history",
        metavar="FILE",
        type=Path,
        help="where to leave the history of the run, for `trimtab check-history`; with "
        "--server, the file into which that writes, without which there is no verdict",
    )


def _add_scenario(parser: argparse.ArgumentParser) -> None:
    group, defaults = parser.add_argument_group("scenario"), Scenario()
    group.add_argument(
        "--switches",
        metavar="N",
        type=int,
        default=defaults.switches,
        help="placements to switch to, at least; not with --plan balance (default: %(default)s)",
    )
    group.add_argument(
        "--seconds",
        metavar="SECONDS",
        type=float,
        default=defaults.seconds,
        help="how long to go on doing so, at least (default: %(default)g)",
    )
    group.add_argument(
        "--plan",
        choices=get_args(Plan),
        help="where to: at random; as the server plans from what the ranks have counted, whenever "
        "it is asked to; or balance: it is not asked, and decides by itself, until the trace has "
        "been replayed or --seconds are over (default: random)",
    )
    group.add_argument(
        "--balance",
        choices=get_args(Balance),
        default="active",
        help="with --plan balance: whether it moves experts, or only says when it would "
        "(default: %(default)s)",
    )
    group.add_argument(
        "--patience",
        metavar="SECONDS",
        type=float,
        default=60.0,
        help="longest wait for a server to start or a switch to be done (default: %(default)g)",
    )
    group.add_argument(
        "--fault",
        metavar="FAULT",
        action="append",
        default=[],
        help="what goes wrong, once; may be given again (see below)",
    )


def _options(arguments: argparse.Namespace) -> FleetOptions:
    names = [field.name for field in fields(FleetOptions) if field.name != "deployment"]
    return FleetOptions(**{name: getattr(arguments, name) for name in names})


def _fleet(arguments: argparse.Namespace, options: FleetOptions, plan: Plan) -> Fleet:
    from trimtab_tools.simulate.fleet import Fleet

    flags = ("--offer-seconds", str(arguments.offer_seconds), "--report-seconds", "0.1")
    return Fleet(
        options,
        server=arguments.server,
        history=arguments.history,
        balance=arguments.balance if plan == "balance" else None,
        server_flags=flags,
        patience=arguments.patience,
    )


def _scenario(arguments: argparse.Namespace, options: FleetOptions) -> Scenario:
    ranks, windows = options.ranks, options.num_windows
    faults = tuple(parse_fault(words, ranks, windows) for words in arguments.fault)
    if arguments.server is not None and any(fault.rank is None for fault in faults):
        raise UsageError("--fault: a server that --server names is not the simulation's to stop")
    plan: Plan = arguments.plan or ("random" if options.trace is None else "balance")
    scenario = Scenario(
        switches=arguments.switches, seconds=arguments.seconds, plan=plan, faults=faults
    )
    check_end(options, scenario)
    return scenario


def parse_windows(text: str) -> tuple[int, int]:
    """Windows from their words, such as 0:32."""
    first, _, end = text.partition(":")
    if not (first.isdecimal() and end.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not A:B, such as 0:32")
    return int(first), int(end)
