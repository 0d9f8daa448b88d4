"""`trimtab trigger`: switch a deployment to another placement."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from trimtab_tools.cli.command import add_name, add_option, add_wait, server_command
from trimtab_tools.cli.connection import connect
from trimtab_tools.cli.files import add_format, read_placement
from trimtab_tools.cli.json_output import show

_EPILOG = """\
examples:
  trimtab trigger prod
  trimtab trigger prod --placement placement.npz

  trimtab trigger prod --wait 600

The command returns once the first switch is offered. Workers may still refuse it. In mode active
the policy may move experts again later: trimtab deployments pin keeps a placement.
"""


def add_to(commands: Any) -> None:
    """Add the command."""
    about = "Switch a deployment to another placement, in as many switches as it takes."
    with server_command(commands, "trigger", run, about, _EPILOG) as parser:
        add_name(parser)
        about = (
            "the placement, of any format that place --output writes; - for standard input, which "
            "is JSON unless --format says otherwise (default: planned from what the workers have "
            "reported)"
        )
        add_option(parser, "--placement", "FILE", Path, about)
        add_format(parser)
        add_wait(parser)


def run(arguments: argparse.Namespace) -> int:
    """Trigger the switch, and print the version in force and the target."""
    placement = read_placement(arguments, arguments.placement)
    with connect(arguments) as client:
        result = client.trigger(arguments.deployment, placement=placement, wait=arguments.wait)
    name, digest = arguments.deployment, result.target.digest
    document = {"deployment": name, "in_force": result.in_force, "target": digest}
    line = f"{name} serves by {result.in_force}, target {digest.hex()}\n"
    return show(arguments, document, line)
