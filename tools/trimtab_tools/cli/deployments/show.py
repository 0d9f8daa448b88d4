"""`trimtab deployments list` and `get`: show all deployments, or one in detail."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from trimtab_tools.cli.command import add_name, add_subcommand
from trimtab_tools.cli.connection import connect
from trimtab_tools.cli.deployments import views
from trimtab_tools.cli.json_output import as_json

_LIST = """\
  trimtab deployments
  trimtab deployments list --json

columns:
  mode                 paused, pinned, or the mode of the policy
  workers, absent      workers with and without a session
  predicted, measured  smoothed imbalance, mean over layers
"""

_GET = """\
  trimtab deployments get prod
  trimtab deployments get prod --json
"""


def add_to(commands: Any, server: str) -> None:
    """Add the commands."""
    add_subcommand(commands, server, "list", run_list, "List all deployments.", _LIST)
    about = "Show all details of a deployment."
    add_subcommand(commands, server, "get", run_get, about, _GET, add_name)


def run_list(arguments: argparse.Namespace) -> int:
    """Print all deployments."""
    with connect(arguments) as client:
        found = client.deployments()
    sys.stdout.write(as_json(found) if arguments.json else views.overview(found))
    return 0


def run_get(arguments: argparse.Namespace) -> int:
    """Print one deployment."""
    with connect(arguments) as client:
        found = client.get_deployment(arguments.deployment)
    sys.stdout.write(as_json(found) if arguments.json else views.details(found))
    return 0
