"""`trimtab check-history`: checks the history of a run against the rules of PROTOCOL.md."""

from __future__ import annotations

import argparse
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from trimtab_client.exceptions import InvalidArgumentError
from trimtab_tools.cli.command import add_command, add_option
from trimtab_tools.cli.json_output import as_document, show
from trimtab_tools.cli.tables import counted
from trimtab_tools.history import Report, check_history, read_history

_EPILOG = """\
examples:
  trimtab check-history history.jsonl
  trimtab check-history history.jsonl --complete
  zcat history.jsonl.gz | trimtab check-history - --json

The exit code is 0 if no rule was violated, 1 if one was, and 2 if the file
cannot be read. PROTOCOL.md has the rules, and the format of a history.
"""


def add_to(commands: Any) -> None:
    """Add the command."""
    about = "Check the history of a run against the rules of the protocol."
    parser = add_command(commands, "check-history", run, about, _EPILOG)
    add_option(parser, "file", "FILE", str, "history in JSON lines; - for standard input")
    about = "the run has come to rest, so every switch must have ended on all workers"
    parser.add_argument("--complete", action="store_true", help=about)
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def run(arguments: argparse.Namespace) -> int:
    """Print the result; returns 0 without violations, 1 with some, 2 if the file is unreadable."""
    name = arguments.file
    try:
        with nullcontext(sys.stdin.buffer) if name == "-" else Path(name).open("rb") as lines:
            report = check_history(read_history(lines), complete=arguments.complete)
    except InvalidArgumentError as error:
        sys.stderr.write(f"trimtab: {name}: {error}\n")
        return 2
    except OSError as error:
        sys.stderr.write(f"trimtab: {error}\n")
        return 2
    show(arguments, {"clean": not report.violations, **as_document(report)}, _as_text(report))
    return 1 if report.violations else 0


def _as_text(report: Report) -> str:
    events, deployments = counted(report.events, "event"), counted(report.deployments, "deployment")
    epochs, flips = counted(report.epochs, "epoch"), counted(report.flips, "flip")
    offered, committed, aborted = report.offered, report.committed, report.aborted
    lines = [
        f"{events} of {deployments}: {epochs}, {flips}",
        f"switches: {offered} offered, {committed} committed, {aborted} aborted",
    ]
    if report.unplaced:
        lines.append(f"I8 is not checked for {counted(report.unplaced, 'version')}: no placement")
    for kind, number in report.other_kinds.items():
        lines.append(f"not judged: {counted(number, 'event')} of kind {kind!r}")
    lines.append(counted(len(report.violations), "violation"))
    lines += map(str, report.violations)
    return "\n".join(lines) + "\n"
