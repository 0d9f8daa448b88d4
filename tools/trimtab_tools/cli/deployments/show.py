"""`trimtab deployments list` and `get`: show all deployments, or one in detail."""

from __future__ import annotations

import argparse
from typing import Any

from trimtab_tools.cli.command import add_name, server_command
from trimtab_tools.cli.connection import connect
from trimtab_tools.cli.deployments import views
from trimtab_tools.cli.json_output import show

_LIST = """\
examples:
  trimtab deployments
  trimtab deployments list --json

columns:
  mode                 of the policy
  held                 paused, pinned, or both: the policy moves nothing meanwhile
  workers, absent      workers with and without a session
  predicted, measured  smoothed imbalance, mean over layers
  unused               time since it had a session, or its engine called
"""

_GET = """\
examples:
  trimtab deployments get prod
  trimtab deployments get prod --json
"""


def add_to(commands: Any) -> None:
    """Add the commands."""
    with server_command(commands, "list", run_list, "List all deployments.", _LIST):
        pass
    about = "Show all details of a deployment."
    with server_command(commands, "get", run_get, about, _GET) as parser:
        add_name(parser)


def run_list(arguments: argparse.Namespace) -> int:
    """Print all deployments."""
    with connect(arguments) as client:
        found = client.deployments()
    return show(arguments, found, views.overview(found))


def run_get(arguments: argparse.Namespace) -> int:
    """Print one deployment."""
    with connect(arguments) as client:
        found = client.get_deployment(arguments.deployment)
    return show(arguments, found, views.details(found))
