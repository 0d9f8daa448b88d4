"""Adds commands and options to the command line, with what their parsers have in common."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

from trimtab_client.channel import DEFAULT_TARGET, DEFAULT_TIMEOUT

SERVER_VARIABLE = "TRIMTAB_SERVER"

_LONGEST_WAIT = "longest wait for an answer"

Run = Callable[[argparse.Namespace], int]
"""Runs a command, and returns the exit code."""


def add_command(
    commands: Any,
    name: str,
    run: Run,
    about: str,
    epilog: str,
    *,
    summary: str = "",
    aliases: Sequence[str] = (),
) -> argparse.ArgumentParser:
    """Add a command, with its description and the end of its help; returns its parser.

    The summary is its line in the list of commands, by default the description. The aliases are
    other names of the command.
    """
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        aliases=aliases,
        help=summary or about[0].lower() + about[1:].rstrip("."),
        description=about,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run, parser=parser)
    return parser


@contextmanager
def server_command(
    commands: Any,
    name: str,
    run: Run,
    about: str,
    epilog: str,
    *,
    json: str = "print JSON for scripts",
    timeout: float = DEFAULT_TIMEOUT,
    timeout_about: str = _LONGEST_WAIT,
    aliases: Sequence[str] = (),
) -> Iterator[argparse.ArgumentParser]:
    """Add a command that calls the server, with its own arguments from the `with` block.

    Its last options are --json, with `json` as its help, and those of the connection.
    """
    parser = add_command(commands, name, run, about, epilog, aliases=aliases)
    yield parser
    parser.add_argument("--json", action="store_true", help=json)
    add_server_options(parser, timeout, timeout_about)


def add_option(
    group: argparse._ActionsContainer,
    name: str,
    unit: str,
    kind: Callable[[str], Any],
    about: str,
    **more: Any,
) -> None:
    """Add an option, or a positional argument if its name does not begin with --.

    `unit` stands for its value in the help, and `kind` makes the value from the text.
    """
    group.add_argument(name, metavar=unit, type=kind, help=about, **more)


def add_wait(parser: argparse.ArgumentParser) -> None:
    """Add the option to wait until a deployment can switch."""
    about = (
        "wait at most this long until the deployment can switch, beside --timeout; meanwhile the "
        "policy begins no rollout (default: %(default)g)"
    )
    add_option(parser, "--wait", "SECONDS", float, about, default=0.0)


def add_name(parser: argparse.ArgumentParser) -> None:
    """Add the argument that names a deployment."""
    add_option(parser, "deployment", "NAME", str, "the deployment")


def add_server_options(
    parser: argparse.ArgumentParser, timeout: float, timeout_about: str = _LONGEST_WAIT
) -> argparse._ArgumentGroup:
    """Add the options of the connection; returns their group."""
    group = parser.add_argument_group("server")
    server = os.environ.get(SERVER_VARIABLE, DEFAULT_TARGET)
    about = "host:port or unix:path (default: %(default)s)"
    add_option(group, "--server", "ADDRESS", str, about, default=server)
    about = f"{timeout_about} (default: %(default)g)"
    add_option(group, "--timeout", "SECONDS", float, about, default=timeout)
    group.add_argument("--tls", action="store_true", help="use TLS, trusting the system's CAs")
    add_option(group, "--tls-ca", "FILE", str, "use TLS, trusting the CAs in this PEM")
    add_option(group, "--tls-cert", "FILE", str, "use TLS, with this PEM certificate")
    add_option(group, "--tls-key", "FILE", str, "PEM private key of --tls-cert")
    about = "use TLS, and expect this name in the server's certificate"
    add_option(group, "--tls-server-name", "NAME", str, about)
    return group


def add_nodes(group: argparse._ActionsContainer) -> None:
    """Add the options of a topology that not every deployment needs."""
    about = "number of nodes (default: 1)"
    add_option(group, "--nodes", "N", int, about, dest="num_nodes", default=1)
    about = "number of router groups; if above 1, each stays on one node (default: 1)"
    add_option(group, "--groups", "N", int, about, dest="num_groups", default=1)


def from_arguments(kind: Any, arguments: argparse.Namespace) -> Any:
    """Make an options dataclass from the arguments of the same names."""
    return kind(**{field.name: getattr(arguments, field.name) for field in fields(kind)})
