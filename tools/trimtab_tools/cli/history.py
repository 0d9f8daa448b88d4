"""`trimtab history`: the decisions about a deployment, and what operators have done to it."""

from __future__ import annotations

import argparse
from typing import Any

from trimtab_client.client import Client
from trimtab_client.exceptions import NotFoundError, UnimplementedError
from trimtab_client.operations import Operation
from trimtab_tools.cli.command import add_name, add_option, server_command
from trimtab_tools.cli.connection import connect
from trimtab_tools.cli.deployments.views import decisions_text, operations_text
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

  operation      what an operator did, who, and what it changed

The server keeps operations over restarts, also those on a deployment that was deleted, and the
last 256 decisions since it started.
"""


def add_to(commands: Any) -> None:
    """Add the command."""
    about = (
        "Show the decisions about a deployment with their reasons, and what operators have done to "
        "it, the newest last."
    )
    json = "print JSON instead of tables"
    with server_command(commands, "history", run, about, _EPILOG, json=json) as parser:
        add_name(parser)
        add_option(parser, "--limit", "N", int, "only the newest N (default: all)", default=0)


def run(arguments: argparse.Namespace) -> int:
    """Print decisions and operations."""
    name, limit = arguments.deployment, arguments.limit
    with connect(arguments) as client:
        operations = _operations(client, name, limit)
        try:
            decisions = client.decisions(name, limit)
        except NotFoundError:
            if not operations:
                raise
            decisions = []  # It was deleted.
    document = {"decisions": decisions, "operations": operations}
    more = f"\n{operations_text(operations)}" if operations else ""
    return show(arguments, document, decisions_text(decisions) + more)


def _operations(client: Client, name: str, limit: int) -> list[Operation]:
    try:
        return client.operations(name, limit)
    except UnimplementedError:
        return []  # Older servers keep none.
