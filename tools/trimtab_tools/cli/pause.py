"""`trimtab pause` and `resume`: forbid a deployment to switch, and allow it again."""

from __future__ import annotations

import argparse
from typing import Any

from trimtab_tools.cli.command import add_name, add_option, server_command
from trimtab_tools.cli.connection import connect
from trimtab_tools.cli.json_output import show
from trimtab_tools.cli.tables import one_line

_PAUSE = """\
examples:
  trimtab pause prod "maintenance until 18:00, ask Ada"
"""

_RESUME = """\
examples:
  trimtab resume prod

If the server has paused it, remove the cause first; the server's log has it as an alarm.
"""


def add_to(commands: Any) -> None:
    """Add the commands."""
    about = "Abort a deployment's open switch, and offer none until it is resumed."
    with server_command(commands, "pause", run_pause, about, _PAUSE) as parser:
        add_name(parser)
        about = "the reason, for people; at most 1000 characters"
        add_option(parser, "reason", "REASON", str, about)
    about = "Allow a paused deployment to switch again."
    with server_command(commands, "resume", run_resume, about, _RESUME) as parser:
        add_name(parser)


def run_pause(arguments: argparse.Namespace) -> int:
    """Pause the deployment, and print the earlier reason if it was paused before."""
    with connect(arguments) as client:
        before = client.pause(arguments.deployment, arguments.reason)
    was = "" if before is None else f", and was before: {one_line(before)}"
    return _show(arguments, arguments.reason, before, f"is paused{was}")


def run_resume(arguments: argparse.Namespace) -> int:
    """Resume the deployment, and print the reason for which it was paused."""
    with connect(arguments) as client:
        before = client.resume(arguments.deployment)
    was = "was not paused" if before is None else f"is resumed; it was paused: {one_line(before)}"
    return _show(arguments, None, before, was)


def _show(arguments: argparse.Namespace, now: str | None, before: str | None, said: str) -> int:
    """Print the reason for which a deployment is paused now, and the one before."""
    name = arguments.deployment
    document = {"deployment": name, "paused_reason": now, "previous_reason": before}
    return show(arguments, document, f"{name} {said}\n")
