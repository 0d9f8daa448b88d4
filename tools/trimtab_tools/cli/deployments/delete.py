"""`trimtab deployments delete`: deployments by name, or all that have been unused for a while."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trimtab_client.client import Client
from trimtab_client.deployments import Deployment
from trimtab_client.exceptions import TrimtabError
from trimtab_tools.cli.command import add_option, server_command
from trimtab_tools.cli.connection import connect
from trimtab_tools.cli.deployments import views
from trimtab_tools.cli.errors import UsageError
from trimtab_tools.cli.json_output import as_json
from trimtab_tools.cli.tables import counted, table_of

_DELETE = """\
examples:
  trimtab deployments delete prod
  trimtab deployments delete canary-1 canary-2
  trimtab deployments delete --unused-for 604800 --dry-run

No worker may be connected. A deployment that its engine switches by itself can be deleted at any
time; the engine's next call creates it again. If one cannot be deleted, the others still are:
standard error says which one and why, and the exit code is 1.

The server itself deletes deployments after its setting expire_seconds.
"""


@dataclass(frozen=True)
class Deletion:
    """What became of a deployment. `error`: why it was not deleted; None if nothing failed."""

    deployment: str
    deleted: bool
    error: str | None = None


def add_to(commands: Any) -> None:
    """Add the command."""
    about = "Delete deployments: by name, or those that nobody uses."
    with server_command(commands, "delete", run_delete, about, _DELETE) as parser:
        ways = "(NAME [NAME ...] | --unused-for SECONDS [--dry-run])"
        parser.usage = f"trimtab deployments delete {ways} [options]"
        add_option(parser, "deployments", "NAME", str, "a deployment", nargs="*")
        about = "delete all that have had no session, and no call of their engine, for so long"
        add_option(parser, "--unused-for", "SECONDS", _positive, about)
        about = "show which would be deleted, but delete none"
        parser.add_argument("--dry-run", action="store_true", help=about)


def run_delete(arguments: argparse.Namespace) -> int:
    """Delete deployments, and print what became of each."""
    names, unused_for = arguments.deployments, arguments.unused_for
    if bool(names) == (unused_for is not None):
        raise UsageError("give either the names of deployments, or --unused-for")
    if arguments.dry_run and names:
        raise UsageError("--dry-run needs --unused-for: it shows which deployments that means")
    with connect(arguments) as client:
        if unused_for is not None:
            found = [each for each in client.deployments() if _is_unused(each, unused_for)]
            names = [each.spec.name for each in found]
            _announce(arguments, found)
        if arguments.dry_run:
            return _finish(arguments, [Deletion(name, deleted=False) for name in names])
        outcomes = []
        for name in dict.fromkeys(names):
            outcomes.append(_delete(client, name, unused_for))
            _print(arguments, outcomes[-1])
    return _finish(arguments, outcomes)


def _positive(text: str) -> float:
    seconds = float(text)
    if not seconds > 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return seconds


_positive.__name__ = "number"  # argparse names it in its errors


def _is_unused(deployment: Deployment, seconds: float) -> bool:
    return deployment.status.unused_seconds >= seconds


def _delete(client: Client, name: str, unused_for: float | None) -> Deletion:
    try:
        # Where there are many to delete, one may have come into use since they were listed.
        if unused_for is not None and not _is_unused(client.get_deployment(name), unused_for):
            return Deletion(name, deleted=False, error="it is in use again")
        client.delete_deployment(name)
    except TrimtabError as error:
        return Deletion(name, deleted=False, error=str(error))
    return Deletion(name, deleted=True)


def _announce(arguments: argparse.Namespace, found: Sequence[Deployment]) -> None:
    if arguments.json:
        return
    if found:
        sys.stdout.write(table_of(found, _FOUND, left=["mode"]))
    verb = "would be deleted" if arguments.dry_run else "to delete"
    about = f"unused for at least {arguments.unused_for:g} s"
    sys.stdout.write(f"{counted(len(found), 'deployment')} {about} {verb}\n")
    sys.stdout.flush()


def _print(arguments: argparse.Namespace, outcome: Deletion) -> None:
    if outcome.error is not None:
        sys.stderr.write(f"trimtab: {outcome.deployment} is not deleted: {outcome.error}\n")
    elif not arguments.json:
        sys.stdout.write(f"{outcome.deployment} is deleted\n")


def _finish(arguments: argparse.Namespace, outcomes: Sequence[Deletion]) -> int:
    """Print JSON if that is asked for; returns the exit code."""
    if arguments.json:
        sys.stdout.write(as_json(outcomes))
    return int(any(outcome.error is not None for outcome in outcomes))


_FOUND: Mapping[str, Callable[[Deployment], str]] = {
    "deployment": lambda each: each.spec.name,
    "mode": views.mode_of,
    "unused": lambda each: views.duration(each.status.unused_seconds),
}
