"""`trimtab decisions`: the decisions about a deployment, as `Client.decisions` gives them."""

from __future__ import annotations

import argparse
from typing import Any

from trimtab_tools.cli.command import add_name, add_option, server_command
from trimtab_tools.cli.connection import connect
from trimtab_tools.cli.deployments.views import decisions_text
from trimtab_tools.cli.json_output import show

_EPILOG = """\
examples:
  trimtab decisions prod
  trimtab decisions prod --limit 20 --json

`trimtab history --help` says what the columns are.
"""


def add_to(commands: Any) -> None:
    """Add the command."""
    about = "Show the decisions about a deployment and their reasons, and nothing else."
    json = "print JSON instead of a table"
    with server_command(commands, "decisions", run, about, _EPILOG, json=json) as parser:
        add_name(parser)
        add_option(parser, "--limit", "N", int, "only the newest N (default: all)", default=0)


def run(arguments: argparse.Namespace) -> int:
    """Print the decisions."""
    with connect(arguments) as client:
        found = client.decisions(arguments.deployment, arguments.limit)
    return show(arguments, found, decisions_text(found))
