"""`trimtab history`: the decisions about a deployment, and their reasons."""

from __future__ import annotations

import argparse
from typing import Any

from trimtab_tools.cli.command import add_name, add_option, server_command
from trimtab_tools.cli.connection import connect
from trimtab_tools.cli.deployments.views import decisions_text
from trimtab_tools.cli.json_output import show

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


def add_to(commands: Any) -> None:
    """Add the command."""
    about = "Show the decisions about a deployment and their reasons, the newest last."
    json = "print JSON instead of a table"
    with server_command(commands, "history", run, about, _EPILOG, json=json) as parser:
        add_name(parser)
        add_option(parser, "--limit", "N", int, "only the newest N (default: all)", default=0)


def run(arguments: argparse.Namespace) -> int:
    """Print the decisions."""
    with connect(arguments) as client:
        found = client.decisions(arguments.deployment, arguments.limit)
    return show(arguments, found, decisions_text(found))
