"""`trimtab history`: what was decided about a deployment, and why."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from trimtab_client.channel import DEFAULT_TIMEOUT
from trimtab_tools.cli.connection import add_server_options, connect
from trimtab_tools.cli.deployments.views import decisions_text
from trimtab_tools.cli.documents import as_json

_EPILOG = """\
examples:
  trimtab history prod
  trimtab history prod --limit 20 --json

before, after: predicted imbalance of what was in force and of what was planned, mean over layers;
sigma: their standard deviation by noise; noise: imbalance that noise alone may look like; tokens:
of a layer, as the estimate remembers; spread: variance of the counts by that of independent tokens;
moving: how long the busiest GPU would send or receive; kept: what an earlier switch has realised of
the gain that it promised, as it was judged with this decision; times: decided so in a row.
"""


def add_to(commands: Any, server: str) -> argparse.ArgumentParser:
    """Add the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "history",
        help="show what was decided about a deployment, and why",
        description="Show whether a deployment's experts were to move, and why: the newest last.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("deployment", metavar="NAME", help="the deployment")
    parser.add_argument(
        "--limit", metavar="N", type=int, default=0, help="the newest N (default: all there are)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    add_server_options(parser, server, DEFAULT_TIMEOUT)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Print the decisions."""
    with connect(arguments) as client:
        found = client.decisions(arguments.deployment, arguments.limit)
    sys.stdout.write(as_json(found) if arguments.json else decisions_text(found))
    return 0
