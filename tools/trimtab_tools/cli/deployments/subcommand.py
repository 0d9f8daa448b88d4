"""What the commands below `trimtab deployments` have in common."""

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
    """Add a command that `run` carries out; it takes --json, and a server.

    Args:
        commands: where to.
        server: address of the server, where none is given.
        name: of the command.
        run: carries it out, and returns the exit code.
        about: a sentence.
        examples: lines.
        adding: what add its own arguments.
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
