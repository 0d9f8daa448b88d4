"""Adds one of the commands below `trimtab deployments`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from trimtab_client.channel import DEFAULT_TIMEOUT
from trimtab_tools.cli.connection import add_server_options


def add_subcommand(
    commands: Any,
    server: str,
    name: str,
    run: Callable[[argparse.Namespace], int],
    about: str,
    examples: str,
    *adding: Callable[[argparse.ArgumentParser], object],
) -> None:
    """Add a command, with --json and the options of the connection.

    Args:
        commands: the subparsers to which it is added.
        server: default address of the server.
        name: of the command.
        run: runs it, and returns the exit code.
        about: its description, a sentence.
        examples: lines for its help.
        adding: functions that add its own arguments.
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=about[0].lower() + about[1:].rstrip("."),
        description=about,
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run, parser=parser)
    for add in adding:
        add(parser)
    parser.add_argument("--json", action="store_true", help="print JSON for scripts")
    add_server_options(parser, server, DEFAULT_TIMEOUT)


def add_name(parser: argparse.ArgumentParser) -> None:
    """Add the argument that names a deployment."""
    parser.add_argument("deployment", metavar="NAME", help="the deployment")
