"""`trimtab place`: plans a placement for a load in a file."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_args

import numpy.typing as npt

from trimtab_client.options import Effort, MoveBudget, Objective, SolverOptions, Topology
from trimtab_client.placement import Balance, Placement
from trimtab_client.results import PlaceResult
from trimtab_tools.cli import files, place_report
from trimtab_tools.cli.command import add_command
from trimtab_tools.cli.connection import add_server_options, connect
from trimtab_tools.cli.errors import UsageError
from trimtab_tools.cli.local_solver import local_solver

_TIMEOUT_SECONDS = 60.0

_EPILOG = """\
examples:
  # 256 experts in 288 slots on 32 GPUs
  trimtab place loads.npz --gpus 32 --replicas 288

  # experts of a router group stay on one of 4 nodes; for the sum of a trace
  trimtab place trace.npz --sum --gpus 32 --replicas 288 --nodes 4 --groups 8

  # keep the placement, then improve it by at most 4 moves a layer
  trimtab place monday.npz --gpus 32 --replicas 288 --output placement.npz
  trimtab place tuesday.npz --gpus 32 --replicas 288 \\
      --current placement.npz --max-moves-per-layer 4 --output placement.npz

  # without a server, as JSON
  trimtab place loads.json --gpus 8 --replicas 40 --local --json
"""


def add_to(commands: Any, server: str) -> argparse.ArgumentParser:
    """Add the command."""
    about = "Place the experts of a load on GPUs so that all GPUs carry about the same load."
    parser = add_command(commands, "place", about, _EPILOG)
    parser.usage = "trimtab place LOAD --gpus G --replicas R [options]"
    _add_input(parser)
    _add_topology(parser)
    _add_current(parser)
    _add_solver(parser)
    group = add_server_options(parser, server, _TIMEOUT_SECONDS)
    group.add_argument(
        "--local", action="store_true", help="plan in this process, without a server"
    )
    _add_output(parser)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Plan the placement, and print the report."""
    files.check_output(arguments.output, "--output")
    load = files.read_load(arguments.load, arguments.key, arguments.index, total=arguments.sum)
    current = None if arguments.current is None else files.read_placement(arguments.current)
    topology = _from(Topology, arguments)
    options = {
        "current": current,
        "budget": _budget(arguments),
        "options": _from(SolverOptions, arguments),
    }
    solver, place = _solver(arguments)
    start = time.perf_counter()
    result = place(load, topology, **options)
    seconds = time.perf_counter() - start
    before = result.before or _untouched(result, topology, load)
    layout = "untouched" if current is None else "current"
    _print(arguments, place_report.Report(result, topology, before, layout, seconds, solver))
    return 0


def _solver(arguments: argparse.Namespace) -> tuple[str, Callable[..., PlaceResult]]:
    if arguments.local:
        return "this process", local_solver()

    def place(*args: Any, **options: Any) -> PlaceResult:
        with connect(arguments) as client:
            return client.place(*args, **options)

    return arguments.server, place


def _untouched(result: PlaceResult, topology: Topology, load: npt.ArrayLike) -> Balance:
    """Balance of the placement that an engine loads by default; the bound holds for any."""
    layers, experts = result.placement.logcnt.shape
    untouched = Placement.untouched(layers, experts, topology.num_replicas, topology.num_gpus)
    return replace(untouched.balance(load), bound=result.after.bound)


def _print(arguments: argparse.Namespace, result: place_report.Report) -> None:
    if arguments.output is not None:
        place_report.write(result, arguments.output)
    show = place_report.as_json if arguments.json else place_report.as_text
    sys.stdout.write(show(result))


def _budget(arguments: argparse.Namespace) -> MoveBudget | None:
    budget: MoveBudget = _from(MoveBudget, arguments)
    if budget == MoveBudget():
        return None
    if arguments.current is None:
        raise UsageError("a move budget needs --current, the placement to improve")
    return budget


def _from(kind: Any, arguments: argparse.Namespace) -> Any:
    """Make an options dataclass from the arguments of the same names."""
    return kind(**{field.name: getattr(arguments, field.name) for field in fields(kind)})


def _add_input(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("load")
    group.add_argument(
        "load",
        metavar="LOAD",
        type=Path,
        help=".npz or .json with tokens per expert, [layers, experts]",
    )
    group.add_argument(
        "--key",
        metavar="NAME",
        help="name of the array in the file (default: 'load', or the only one)",
    )
    choice = group.add_mutually_exclusive_group()
    choice.add_argument(
        "--index", metavar="I", type=int, help="take load I of a trace [time, layers, experts]"
    )
    choice.add_argument("--sum", action="store_true", help="take the sum of a trace over time")


def _add_topology(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("topology")
    group.add_argument(
        "--gpus", dest="num_gpus", metavar="G", type=int, required=True, help="number of GPUs"
    )
    group.add_argument(
        "--replicas",
        dest="num_replicas",
        metavar="R",
        type=int,
        required=True,
        help="expert slots of a layer, over all GPUs",
    )
    group.add_argument(
        "--nodes",
        dest="num_nodes",
        metavar="N",
        type=int,
        default=1,
        help="number of nodes (default: 1)",
    )
    group.add_argument(
        "--groups",
        dest="num_groups",
        metavar="N",
        type=int,
        default=1,
        help="number of router groups; if above 1, each stays on one node (default: 1)",
    )


def _add_current(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("placement in force")
    group.add_argument(
        "--current",
        metavar="FILE",
        type=Path,
        help="placement in force: move few experts away from it",
    )
    group.add_argument(
        "--max-moves-per-layer",
        metavar="N",
        type=int,
        help="improve it by at most N moves in each layer",
    )
    group.add_argument(
        "--max-moves", metavar="N", type=int, help="improve it by at most N moves over all layers"
    )
    group.add_argument("--min-gain", metavar="X", type=float, help="minimum gain of a move")
    group.add_argument(
        "--cross-node-cost",
        metavar="X",
        type=float,
        help="cost of a move between nodes, where a move inside a node costs 1",
    )


def _add_solver(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("solver")
    group.add_argument("--effort", choices=get_args(Effort), help="how hard the solver tries")
    group.add_argument(
        "--seed", metavar="N", type=int, default=0, help="seed of its restarts (default: 0)"
    )
    group.add_argument(
        "--objective", choices=get_args(Objective), help="the value that a swap has to lower"
    )
    group.add_argument(
        "--top-k",
        metavar="K",
        type=int,
        help="number of heaviest and of lightest GPUs to try for a swap",
    )
    group.add_argument(
        "--max-iterations",
        metavar="N",
        type=int,
        help="maximum number of swaps in a layer; -1 for no limit",
    )
    group.add_argument(
        "--restarts", metavar="N", type=int, help="number of starts; the best result is used"
    )


def _add_output(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("output")
    group.add_argument("--json", action="store_true", help="print JSON instead of a table")
    group.add_argument(
        "--output", metavar="FILE", type=Path, help="write the placement to an .npz or .json file"
    )
