"""Adds commands to the command line, with what their parsers have in common."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from trimtab_client.channel import DEFAULT_TIMEOUT
from trimtab_tools.cli.connection import add_server_options


def add_command(
    commands: Any, name: str, about: str, epilog: str, *, summary: str = ""
) -> argparse.ArgumentParser:
    """Add a command; returns its parser.

    Args:
        commands: the subparsers to which it is added.
        name: of the command.
        about: its description.
        epilog: the end of its help.
        summary: its line in the list of commands; by default the description.
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary or about[0].lower() + about[1:].rstrip("."),
        description=about,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def add_subcommand(
    commands: Any,
    server: str,
    name: str,
    run: Callable[[argparse.Namespace], int],
    about: str,
    examples: str,
    *adding: Callable[[argparse.ArgumentParser], object],
) -> None:
    """Add a command below `trimtab deployments`, with --json and the options of the connection.

    Args:
        commands: the subparsers to which it is added.
        server: default address of the server.
        name: of the command.
        run: runs it, and returns the exit code.
        about: its description, a sentence.
        examples: lines for its help.
        adding: functions that add its own arguments.
    """
    parser = add_command(commands, name, about, f"examples:\n{examples}")
    parser.set_defaults(run=run, parser=parser)
    for add in adding:
        add(parser)
    parser.add_argument("--json", action="store_true", help="print JSON for scripts")
    add_server_options(parser, server, DEFAULT_TIMEOUT)


def add_name(parser: argparse.ArgumentParser) -> None:
    """Add the argument that names a deployment."""
    parser.add_argument("deployment", metavar="NAME", help="the deployment")
