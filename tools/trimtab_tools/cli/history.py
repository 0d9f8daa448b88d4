"""`trimtab history`: the decisions about a deployment, and their reasons."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from trimtab_client.channel import DEFAULT_TIMEOUT
from trimtab_tools.cli.command import add_command
from trimtab_tools.cli.connection import add_server_options, connect
from trimtab_tools.cli.deployments.views import decisions_text
from trimtab_tools.cli.json_output import as_json

_EPILOG = """\
examples:
  trimtab history prod
  trimtab history prod --limit 20 --json

columns:
  before, after  predicted imbalance of the placement in force and of the planned one, mean over
                 layers
  sigma          standard deviation of these predictions
  noise          imbalance that may be noise alone
  tokens         tokens of a layer in the load estimate
  spread         variance of the counts / variance of independent tokens
  moving         time that the busiest GPU would send or receive weights
  kept           realised part of the gain that an earlier switch promised, if this decision
                 judged it
  times          number of equal decisions in a row
"""


def add_to(commands: Any, server: str) -> argparse.ArgumentParser:
    """Add the command."""
    about = "Show the decisions about a deployment and their reasons, the newest last."
    parser = add_command(commands, "history", about, _EPILOG)
    parser.add_argument("deployment", metavar="NAME", help="the deployment")
    parser.add_argument(
        "--limit", metavar="N", type=int, default=0, help="only the newest N (default: all)"
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
