"""`trimtab resume`: allow a deployment to switch again."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from trimtab_client.channel import DEFAULT_TIMEOUT
from trimtab_tools.cli.command import add_command
from trimtab_tools.cli.connection import add_server_options, connect

_EPILOG = """\
examples:
  trimtab resume prod

If the server has paused it, remove the cause first; the server's log has it as an alarm.
"""


def add_to(commands: Any, server: str) -> argparse.ArgumentParser:
    """Add the command."""
    about = "Allow a paused deployment to switch again."
    parser = add_command(commands, "resume", about, _EPILOG)
    parser.add_argument("deployment", metavar="DEPLOYMENT", help="name of the deployment")
    add_server_options(parser, server, DEFAULT_TIMEOUT)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Resume the deployment, and print the reason for which it was paused."""
    with connect(arguments) as client:
        before = client.resume(arguments.deployment)
    was = "was not paused" if before is None else f"is resumed; it was paused: {before}"
    sys.stdout.write(f"{arguments.deployment} {was}\n")
    return 0
