"""`trimtab check-engine`: checks an engine's adapter against the contract of ENGINES.md."""

from __future__ import annotations

import argparse
import os
import sys
import threading
from collections import Counter
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

from trimtab_client.exceptions import InvalidArgumentError
from trimtab_protocol.messages import Transfer
from trimtab_tools.cli.command import add_command, add_option, from_arguments
from trimtab_tools.cli.errors import UsageError
from trimtab_tools.cli.json_output import show
from trimtab_tools.cli.tables import table
from trimtab_tools.conformance import Owners, Report, Result, Shape, Verdict, check_engine
from trimtab_tools.conformance.adapter import MakeGroup
from trimtab_tools.conformance.case import DEFAULT_PATIENCE
from trimtab_tools.conformance.inprocess import make_group

_EPILOG = """\
examples:
  trimtab check-engine
  trimtab check-engine my_engine.adapter:make_group --transfer collective
  trimtab check-engine my_engine.adapter:make_group --hidden 4096 --patience 60 --json

The factory takes a GroupSpec and returns an EngineAdapter for each rank; see
trimtab_tools.conformance.adapter, and ENGINES.md for what adapters have to do.
The module may also be in the current folder. Without a factory, the command
checks the reference.

Each case runs with one rank for each GPU ("each"), with two ranks that own the
even and the odd GPUs ("several"), and with one rank that owns all ("one").

The exit code is 0 if no case failed, 1 if one did, and 2 if the factory cannot
be imported.
"""

_HELP = {
    "layers": "MoE layers",
    "experts": "experts of a layer",
    "slots": "expert slots of a layer, over all GPUs",
    "gpus": "GPUs",
    "staging_slots": "number of expert weights for which the staging of each GPU has room",
    "hidden": "width of tokens",
}


def add_to(commands: Any) -> None:
    """Add the command."""
    about = "Check an engine's adapter against the contract, without any server."
    parser = add_command(commands, "check-engine", run, about, _EPILOG)
    about = "function that makes groups of ranks"
    add_option(parser, "factory", "MODULE:FACTORY", str, about, nargs="?")
    for field in fields(Shape):
        name, about = field.name.replace("_", "-"), f"{_HELP[field.name]} (default: %(default)s)"
        add_option(parser, f"--{name}", "N", int, about, default=field.default)
    parser.add_argument(
        "--transfer",
        choices=[*(transfer.value for transfer in Transfer), "both"],
        default="both",
        help="how weights come into staging (default: %(default)s)",
    )
    add_option(parser, "--seed", "N", int, "seed of all random choices (default: 0)", default=0)
    about = "longest time that a call or a transfer may take (default: %(default)g)"
    add_option(parser, "--patience", "SECONDS", float, about, default=DEFAULT_PATIENCE)
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def run(arguments: argparse.Namespace) -> int:
    """Check the engine and print the results; returns 0 if no case failed, else 1."""
    before = set(threading.enumerate())
    make = _import_factory(arguments.factory) if arguments.factory else make_group
    try:
        shape = from_arguments(Shape, arguments)
    except InvalidArgumentError as error:
        raise UsageError(str(error)) from error
    if arguments.seed < 0 or arguments.patience <= 0:
        raise UsageError("--seed has to be at least 0, and --patience above 0")
    transfers = [t for t in Transfer if arguments.transfer in (t.value, "both")]
    seed, patience = arguments.seed, arguments.patience
    report = check_engine(make, shape, transfers=transfers, seed=seed, patience=patience)
    document = {"ok": report.ok, "shape": shape, "seed": seed, "cases": _cases(report)}
    show(arguments, document, _as_text(report))
    code = 0 if report.ok else 1
    if not all(thread.daemon for thread in set(threading.enumerate()) - before):
        # An adapter is stuck, and Python would wait for its threads for ever.
        sys.stdout.flush()
        os._exit(code)
    return code


def _import_factory(name: str) -> MakeGroup:
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise UsageError(f"{name!r} is not MODULE:FACTORY")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)
    try:
        factory: MakeGroup = getattr(import_module(module), attribute)
    except Exception as error:
        # A module may raise any error when it is imported.
        raise UsageError(f"{name}: {error!r}") from error
    if not callable(factory):
        raise UsageError(f"{name}: {factory!r} cannot be called")
    return factory


def _as_text(report: Report) -> str:
    results = {str(result.case): result for result in report.results}
    columns = [
        (transfer, owners)
        for transfer in dict.fromkeys(result.case.transfer for result in report.results)
        for owners in Owners
    ]
    rows = []
    for name in dict.fromkeys(result.case.name for result in report.results):
        cells = (f"{transfer.value}-{name}-{owners.value}" for transfer, owners in columns)
        rows.append([name, *(_cell(results.get(cell)) for cell in cells)])
    header = ["", *(f"{transfer.value} {owners.value}" for transfer, owners in columns)]
    skipped = Counter(result.message for result in report.having(Verdict.SKIPPED))
    lines = [f"{number} skipped: {reason}" for reason, number in skipped.items()]
    lines += [f"{r.case}: {r.case.reason}: {r.message}" for r in report.having(Verdict.FAILED)]
    lines.append(", ".join(f"{len(report.having(verdict))} {verdict.value}" for verdict in Verdict))
    return table(header, rows) + "\n".join(lines) + "\n"


def _cell(result: Result | None) -> str:
    if result is None:
        return ""
    return {Verdict.OK: "ok", Verdict.FAILED: "FAILED", Verdict.SKIPPED: "-"}[result.verdict]


def _cases(report: Report) -> list[dict[str, object]]:
    return [
        {
            "case": str(result.case),
            "reason": result.case.reason,
            "verdict": result.verdict,
            "message": result.message,
        }
        for result in report.results
    ]
