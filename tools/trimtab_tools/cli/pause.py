"""`trimtab pause`: forbid a deployment to switch."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from trimtab_client.channel import DEFAULT_TIMEOUT
from trimtab_tools.cli.command import add_command
from trimtab_tools.cli.connection import add_server_options, connect

_EPILOG = """\
examples:
  trimtab pause prod "maintenance until 18:00, ask Ada"
"""


def add_to(commands: Any, server: str) -> argparse.ArgumentParser:
    """Add the command."""
    about = "Abort a deployment's open switch, and offer none until it is resumed."
    parser = add_command(commands, "pause", about, _EPILOG)
    parser.add_argument("deployment", metavar="DEPLOYMENT", help="name of the deployment")
    parser.add_argument(
        "reason", metavar="REASON", help="the reason, for people; at most 1000 characters"
    )
    add_server_options(parser, server, DEFAULT_TIMEOUT)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Pause the deployment, and print the earlier reason if it was paused before."""
    with connect(arguments) as client:
        before = client.pause(arguments.deployment, arguments.reason)
    was = "" if before is None else f", and was before: {before}"
    sys.stdout.write(f"{arguments.deployment} is paused{was}\n")
    return 0
