"""`trimtab simulate`: a fleet of real processes, with faults on demand."""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab_client.cli.errors import UsageError
from trimtab_client.cli.fleet_report import as_json, as_text
from trimtab_client.exceptions import InvalidArgumentError
from trimtab_client.simulate.faults import GRAMMAR, parse_fault
from trimtab_client.simulate.options import FleetOptions
from trimtab_client.simulate.scenario import Scenario

if TYPE_CHECKING:
    from trimtab_client.simulate.fleet import Fleet

_DESCRIPTION = """\
Starts a server and a group of worker processes. Each holds the weights of small experts,
moves them as placements change, and takes steps: its tokens go to their experts by its own
maps, on whichever rank, and what comes back is compared with what they should give. So a
wrong flip shows as wrong tokens. Then it switches from placement to placement, while things
go wrong as you ask.
"""

_EPILOG = f"""\
{GRAMMAR}
examples:
  trimtab simulate
  trimtab simulate --ranks 4 --transfer collective --switches 20
  trimtab simulate --fault kill-rank:2@armed --fault kill-server@2s+1
  trimtab simulate --seconds 30 --plan server --history run.jsonl --json

The exit code is 0 if no token was wrong, no rule of the protocol was broken, and all came
to rest at the end; else 1.
"""

_TICK_S = 0.2
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
    from trimtab_client.simulate.play import play

    try:
        fleet, scenario = _fleet(arguments), _scenario(arguments)
    except InvalidArgumentError as error:
        raise UsageError(str(error)) from error
    try:
        with fleet, _progress(fleet):
            report = play(fleet, scenario)
    except KeyboardInterrupt:
        sys.stderr.write("trimtab: interrupted\n")
        return _INTERRUPTED
    sys.stdout.write(as_json(report) if arguments.json else as_text(report))
    return 0 if report.ok else 1


def _add_fleet(parser: argparse.ArgumentParser) -> None:
    group, defaults = parser.add_argument_group("fleet"), FleetOptions()
    for name, what in (
        ("ranks", "worker processes, each with one GPU"),
        ("layers", "MoE layers"),
        ("experts", "experts of a layer"),
        ("slots", "expert slots of a layer, over all ranks (default: one to spare on each)"),
        ("hidden", "an expert is a float32 matrix [hidden, hidden]"),
        ("tokens", "that each rank routes in each layer of a step"),
        ("barrier-every", "steps from one barrier to the next"),
        ("seed", "of weights, tokens and random placements"),
    ):
        default = getattr(defaults, name.replace("-", "_"))
        shown = what if name == "slots" else f"{what} (default: {default})"
        value = 0 if name == "slots" else default
        group.add_argument(f"--{name}", metavar="N", type=int, default=value, help=shown)
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
        help="placements to switch to, at least (default: %(default)s)",
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
        choices=("random", "server"),
        default=defaults.plan,
        help="where to: at random, or as the server plans from what the ranks have counted "
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


def _fleet(arguments: argparse.Namespace) -> Fleet:
    from trimtab_client.simulate.fleet import Fleet

    names = ("ranks", "layers", "experts", "slots", "hidden", "tokens", "barrier_every", "seed")
    sizes = {name: getattr(arguments, name) for name in names}
    options = FleetOptions(
        **sizes, transfer=arguments.transfer, step_seconds=arguments.step_seconds
    )
    flags = ("--offer-seconds", str(arguments.offer_seconds), "--report-seconds", "0.1")
    return Fleet(
        options,
        server=arguments.server,
        history=arguments.history,
        server_flags=flags,
        patience=arguments.patience,
    )


def _scenario(arguments: argparse.Namespace) -> Scenario:
    faults = tuple(parse_fault(words, arguments.ranks) for words in arguments.fault)
    if arguments.server is not None and any(fault.rank is None for fault in faults):
        raise UsageError("--fault: a server that --server names is not the simulation's to stop")
    return Scenario(
        switches=arguments.switches, seconds=arguments.seconds, plan=arguments.plan, faults=faults
    )


@contextmanager
def _progress(fleet: Fleet) -> Iterator[None]:
    """A line on standard error, if somebody looks at it."""
    if not sys.stderr.isatty():
        yield
        return
    ended = threading.Event()

    def tell() -> None:
        while not ended.wait(_TICK_S):
            sys.stderr.write(f"\r\x1b[K{_now(fleet)}")
            sys.stderr.flush()
        sys.stderr.write("\r\x1b[K")
        sys.stderr.flush()

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _now(fleet: Fleet) -> str:
    ledger = fleet.ledger
    total, applied = ledger.total(), sum(each.is_whole for each in list(ledger.switches.values()))
    struck = f", {ledger.faults[-1].fault}" if ledger.faults else ""
    return (
        f"step {max(total.step, 0)}, {total.tokens} tokens, {total.wrong} wrong, "
        f"{applied} switches{struck}"
    )
