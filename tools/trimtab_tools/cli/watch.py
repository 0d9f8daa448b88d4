"""`trimtab watch`: prints a line for each placement that comes into force."""

from __future__ import annotations

import argparse
import math
import sys
from contextlib import closing, suppress
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import numpy as np

from trimtab_client.deployments import ServedPlacement
from trimtab_client.placement import Placement
from trimtab_tools.cli.command import add_name, add_option, server_command
from trimtab_tools.cli.connection import connect
from trimtab_tools.cli.deployments.views import moment
from trimtab_tools.cli.json_output import as_json

_EPILOG = """\
examples:
  trimtab watch prod
  trimtab watch prod --count 1 --json

It goes on after a restart of the server, and ends with Ctrl-C.
"""


def add_to(commands: Any) -> None:
    """Add the command."""
    about = "Show the placement in force, and each that comes into force after it."
    json = "print JSON, one document on each line"
    timeout_about = "end after this time, with exit code 1"
    with server_command(
        *(commands, "watch", run, about, _EPILOG),
        json=json,
        timeout=math.inf,
        timeout_about=timeout_about,
    ) as parser:
        add_name(parser)
        add_option(parser, "--count", "N", _count, "end after N placements")


def run(arguments: argparse.Namespace) -> int:
    """Print placements as they come."""
    before = None
    with connect(arguments) as client, suppress(KeyboardInterrupt):
        watch = client.watch_placement(arguments.deployment, timeout=arguments.timeout)
        with closing(watch):
            for served in islice(watch, arguments.count):
                sys.stdout.write(_line(arguments, served, before))
                sys.stdout.flush()
                before = served.placement
    return 0


def _line(arguments: argparse.Namespace, served: ServedPlacement, before: Placement | None) -> str:
    now, changed = datetime.now(UTC), _changed(before, served.placement)
    if arguments.json:
        document = {
            "time": now,
            "deployment": arguments.deployment,
            "version": served.version,
            "digest": served.placement.digest,
            "changed_slots": changed,
        }
        return as_json(document, indent=None)
    how = "" if changed is None else f"  {changed} slots changed"
    digest = served.placement.digest.hex()
    return f"{moment(now)}  {arguments.deployment} {served.version}  {digest}{how}\n"


def _changed(before: Placement | None, after: Placement) -> int | None:
    """The number of slots that hold another expert; None if the placements do not compare."""
    if before is None or before.phy2log.shape != after.phy2log.shape:
        return None
    return int(np.count_nonzero(before.phy2log != after.phy2log))


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"{count} is not at least 1")
    return count
