"""`trimtab resume`: allow a deployment to switch again."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from trimtab_client.channel import DEFAULT_TIMEOUT
from trimtab_tools.cli.connection import add_server_options, connect

_EPILOG = """\
examples:
  trimtab resume prod

Where the server has paused it by itself, mend the cause first: the log says it, as alarm.
"""


def add_to(commands: Any, server: str) -> argparse.ArgumentParser:
    """Add the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "resume",
        help="allow a deployment to switch again",
        description="Allow a deployment that is paused to switch again.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("deployment", metavar="DEPLOYMENT", help="its name")
    add_server_options(parser, server, DEFAULT_TIMEOUT)
    return parser


def run(arguments: argparse.Namespace) -> int:
    """Resume, and tell what it was paused for."""
    with connect(arguments) as client:
        before = client.resume(arguments.deployment)
    was = "was not paused" if before is None else f"is resumed; it was paused: {before}"
    sys.stdout.write(f"{arguments.deployment} {was}\n")
    return 0
