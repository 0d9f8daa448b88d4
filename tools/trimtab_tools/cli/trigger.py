"""`trimtab trigger`: switch a deployment to another placement."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from trimtab_client.channel import DEFAULT_TIMEOUT
from trimtab_tools.cli.command import add_command
from trimtab_tools.cli.connection import add_server_options, connect
from trimtab_tools.cli.files import read_placement

_EPILOG = """\
examples:
  trimtab trigger prod
  trimtab trigger prod --placement placement.npz

The command returns once the first switch is offered. Workers may still refuse it.
"""


def add_to(commands: Any, server: str) -> argparse.ArgumentParser:
    """Add the command."""
    about = "Switch a deployment to another placement, in as many switches as it takes."
    parser = add_command(commands, "trigger", about, _EPILOG)
    parser.add_argument("deployment", metavar="DEPLOYMENT", help="name of the deployment")
    parser.add_argument(
        "--placement",
        metavar="FILE",
        type=Path,
        help="the placement, from place --output or phy2log in an .npz or .json file (default: "
        "planned from what the workers have reported)",
    )
    add_server_options(parser, server, DEFAULT_TIMEOUT)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Trigger the switch, and print the version in force and the target."""
    path = arguments.placement
    placement = None if path is None else read_placement(path)
    with connect(arguments) as client:
        result = client.trigger(arguments.deployment, placement=placement)
    digest = result.target.digest.hex()
    sys.stdout.write(f"{arguments.deployment} serves by {result.in_force}, target {digest}\n")
    return 0
