"""`trimtab place`: plans a placement for a load in a file."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy.typing as npt

from trimtab_client.options import Effort, MoveBudget, Objective, SolverOptions, Topology
from trimtab_client.placement import Balance, Placement
from trimtab_client.results import PlaceResult
from trimtab_tools import formats
from trimtab_tools.cli import files, place_report
from trimtab_tools.cli.command import (
    add_command,
    add_nodes,
    add_option,
    add_server_options,
    from_arguments,
)
from trimtab_tools.cli.connection import connect
from trimtab_tools.cli.errors import UsageError
from trimtab_tools.local_solver import local_solver

_TIMEOUT_SECONDS = 60.0
_MAX_LAYERS = 1 << 16

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

  # from what SGLang's recorder has written, for SGLang's --init-expert-location
  trimtab place expert_distribution_recorder_*.pt --gpus 32 --replicas 288 \\
      --output location.json --output-format sglang

formats: npz, npy, json, csv, parquet; sglang (.pt, .json), vllm-ascend (.json) and tensorrt-llm
(.yaml). A .csv or .parquet file has the columns layer, expert, load (and window), and a row for
each expert of each layer.
"""


def add_to(commands: Any) -> None:
    """Add the command."""
    about = "Place the experts of a load on GPUs so that all GPUs carry about the same load."
    parser = add_command(commands, "place", run, about, _EPILOG)
    parser.usage = "trimtab place LOAD [LOAD ...] --gpus G --replicas R [options]"
    _add_input(parser.add_argument_group("load"))
    _add_topology(parser.add_argument_group("topology"))
    _add_current(parser.add_argument_group("placement in force"))
    _add_solver(parser.add_argument_group("solver"))
    group = add_server_options(parser, _TIMEOUT_SECONDS)
    group.add_argument(
        "--local", action="store_true", help="plan in this process, without a server"
    )
    output = parser.add_argument_group("output")
    output.add_argument("--json", action="store_true", help="print JSON instead of a table")
    add_option(output, "--output", "FILE", Path, "write the placement to a file")
    files.add_format(output, "--output-format", "--output")
    about = "number of the load's first layer in the model, for formats that name layers"
    add_option(output, "--first-layer", "N", int, f"{about} (default: 0)")


def run(arguments: argparse.Namespace) -> int:
    """Plan the placement, and print the report."""
    output, output_format = arguments.output, arguments.output_format
    if output is None:
        files.refuse_alone(output_format, "--output-format", "--output")
        files.refuse_alone(arguments.first_layer, "--first-layer", "--output")
    first_layer = arguments.first_layer or 0
    if not 0 <= first_layer < _MAX_LAYERS:
        raise UsageError(f"--first-layer {first_layer} is not in [0, {_MAX_LAYERS})")
    why = "the report is there, and --json gives it with the placement"
    files.refuse_standard(output, "--output", why)
    files.refuse_twice(*arguments.load, arguments.current)
    files.check_output(output, output_format, "--output")
    choice = arguments.format, arguments.key, arguments.index
    load = files.read_load(arguments.load, *choice, total=arguments.sum)
    current = None
    if arguments.current is None:
        files.refuse_alone(arguments.current_format, "--current-format", "--current")
    else:
        current = files.placement_of(arguments.current, arguments.current_format)
    topology = from_arguments(Topology, arguments)
    budget, options = _budget(arguments), from_arguments(SolverOptions, arguments)
    solver, place = _solver(arguments)
    start = time.perf_counter()
    result = place(load, topology, current=current, budget=budget, options=options)
    seconds = time.perf_counter() - start
    before = result.before or _untouched(result, topology, load)
    layout = "untouched" if current is None else "current"
    report = place_report.Report(result, topology, before, layout, seconds, solver)
    if output is not None:
        saved = place_report.saved(report, first_layer)
        formats.write_placement(saved, output, output_format)
    sys.stdout.write((place_report.as_json if arguments.json else place_report.as_text)(report))
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


def _budget(arguments: argparse.Namespace) -> MoveBudget | None:
    budget: MoveBudget = from_arguments(MoveBudget, arguments)
    if budget == MoveBudget():
        return None
    if arguments.current is None:
        raise UsageError("a move budget needs --current, the placement to improve")
    return budget


def _add_input(group: argparse._ArgumentGroup) -> None:
    about = (
        "file with tokens per expert, [layers, experts]; several are added up; - for standard "
        "input, which is JSON unless --format says otherwise"
    )
    add_option(group, "load", "LOAD", Path, about, nargs="+")
    files.add_format(group, of="LOAD")
    about = "name of the array or column in the file (default: 'load', or what its format has)"
    add_option(group, "--key", "NAME", str, about)
    choice = group.add_mutually_exclusive_group()
    about = "take load I of a trace [time, layers, experts]"
    add_option(choice, "--index", "I", int, about)
    choice.add_argument("--sum", action="store_true", help="take the sum of a trace over time")


def _add_topology(group: argparse._ArgumentGroup) -> None:
    add_option(group, "--gpus", "G", int, "number of GPUs", dest="num_gpus", required=True)
    about = "expert slots of a layer, over all GPUs"
    add_option(group, "--replicas", "R", int, about, dest="num_replicas", required=True)
    add_nodes(group)


def _add_current(group: argparse._ArgumentGroup) -> None:
    about = "placement in force: move few experts away from it; - for standard input"
    add_option(group, "--current", "FILE", Path, about)
    files.add_format(group, "--current-format", "--current")
    about = "improve it by at most N moves in each layer"
    add_option(group, "--max-moves-per-layer", "N", int, about)
    about = "improve it by at most N moves over all layers"
    add_option(group, "--max-moves", "N", int, about)
    add_option(group, "--min-gain", "X", float, "minimum gain of a move")
    about = "cost of a move between nodes, where a move inside a node costs 1"
    add_option(group, "--cross-node-cost", "X", float, about)


def _add_solver(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--effort", choices=get_args(Effort), help="how hard the solver tries")
    add_option(group, "--seed", "N", int, "seed of its restarts (default: 0)", default=0)
    about = "the value that a swap has to lower"
    group.add_argument("--objective", choices=get_args(Objective), help=about)
    about = "number of heaviest and of lightest GPUs to try for a swap"
    add_option(group, "--top-k", "K", int, about)
    about = "maximum number of swaps in a layer; -1 for no limit"
    add_option(group, "--max-iterations", "N", int, about)
    about = "number of starts; the best result is used"
    add_option(group, "--restarts", "N", int, about)
