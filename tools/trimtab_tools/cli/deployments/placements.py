"""`trimtab deployments pin`, `unpin`, `roll-back`, `export` and `import`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from trimtab_client.deployments import ServedPlacement
from trimtab_client.results import TriggerResult
from trimtab_tools import formats
from trimtab_tools.cli.command import add_name, add_option, add_wait, server_command
from trimtab_tools.cli.connection import connect
from trimtab_tools.cli.files import (
    STANDARD,
    add_format,
    check_output,
    read_placement,
    refuse_alone,
    write_to_standard_output,
)
from trimtab_tools.cli.json_output import as_document, as_json, show
from trimtab_tools.formats import SavedPlacement

_PIN = """\
examples:
  trimtab deployments pin prod
  trimtab deployments pin prod placement.npz

Without a file, the deployment is pinned to the placement in force.
"""

_UNPIN = """\
examples:
  trimtab deployments unpin prod
"""

_ROLL_BACK = """\
examples:
  trimtab deployments roll-back prod 2.3
  trimtab deployments roll-back prod 3

`trimtab deployments get` shows the versions that it can go back to. The deployment stays pinned
until it is unpinned.
"""

_EXPORT = """\
examples:
  trimtab deployments export prod placement.npz
  trimtab deployments export prod --version 2.3 > placement.json
  trimtab deployments export prod - --format csv | head

  trimtab deployments export prod location.json --format sglang
  trimtab deployments export prod balancer.yaml

The commands import, pin, `trimtab trigger --placement` and `trimtab place --current` read all
these files, but for those of SGLang if the deployment's first layer is above 0: they begin with the
dense layers, which SGLang counts too. For numpy.load, an .npz file has phy2log [layers, slots] and
the sizes.
"""

_IMPORT = """\
examples:
  trimtab deployments import prod placement.npz
  trimtab deployments import prod placement.npz --pin

If a switch is open or workers are missing, it is refused: --wait SECONDS gives that time to end.
With --pin it is not refused: the server switches as soon as it can, and stays there. Without --pin
the policy may move experts again later.
"""

_MAY_MOVE_ON = "in mode active, its policy may move experts again: --pin keeps it there"

_PLACEMENT = "the placement; - for standard input, which is JSON unless --format says otherwise"


def add_to(commands: Any) -> None:
    """Add the commands."""
    about = "Pin a deployment to one placement, whatever its loads are."
    with server_command(commands, "pin", run_pin, about, _PIN) as parser:
        add_name(parser)
        about = f"{_PLACEMENT} (default: the one in force)"
        add_option(parser, "file", "FILE", Path, about, nargs="?")
        add_format(parser)
    about = "Let a deployment's policy decide again."
    with server_command(commands, "unpin", run_unpin, about, _UNPIN) as parser:
        add_name(parser)
    about = "Pin a deployment to a placement that was in force before."
    with server_command(
        commands, "roll-back", run_roll_back, about, _ROLL_BACK, aliases=["rollback"]
    ) as parser:
        add_name(parser)
        about = "a version such as 2.3, or only its generation: 3"
        add_option(parser, "version", "VERSION", str, about)
    about = "Write a placement to a file."
    with server_command(commands, "export", run_export, about, _EXPORT) as parser:
        add_name(parser)
        about = "the file; - for standard output (default: JSON to standard output)"
        add_option(parser, "file", "FILE", Path, about, nargs="?")
        add_format(parser)
        about = "the version to export (default: the one in force)"
        add_option(parser, "--version", "V", str, about)
    about = "Switch a deployment to the placement in a file."
    with server_command(commands, "import", run_import, about, _IMPORT) as parser:
        add_name(parser)
        add_option(parser, "file", "FILE", Path, _PLACEMENT)
        add_format(parser)
        parser.add_argument("--pin", action="store_true", help="pin the deployment to it")
        add_wait(parser)


def run_pin(arguments: argparse.Namespace) -> int:
    """Pin a deployment, and print the target."""
    placement = read_placement(arguments, arguments.file)
    with connect(arguments) as client:
        result = client.pin(arguments.deployment, placement)
    return _print(arguments, result, "is pinned to")


def run_unpin(arguments: argparse.Namespace) -> int:
    """Unpin a deployment, and print the placement to which it was pinned."""
    with connect(arguments) as client:
        before = client.unpin(arguments.deployment)
    was = "was not pinned" if before is None else f"is unpinned; it was pinned to {before.hex()}"
    document = {"deployment": arguments.deployment, "previous_digest": before}
    return show(arguments, document, f"{arguments.deployment} {was}\n")


def run_roll_back(arguments: argparse.Namespace) -> int:
    """Roll a deployment back, and print the target."""
    with connect(arguments) as client:
        result = client.roll_back(arguments.deployment, arguments.version)
    return _print(arguments, result, "is pinned to")


def run_export(arguments: argparse.Namespace) -> int:
    """Write a placement to a file or to standard output."""
    path, format_name, name = arguments.file, arguments.format, arguments.deployment
    if path is None:
        refuse_alone(format_name, "--format", "a FILE, or - for standard output")
    if path == STANDARD and format_name is None:
        path = None
    check_output(path, format_name, "FILE")
    first_layer = 0
    with connect(arguments) as client:
        served = client.get_placement(name, arguments.version)
        if path is not None and formats.names_layers(path, format_name):
            first_layer = client.get_deployment(name).spec.first_layer
    document = {"deployment": name, **as_document(served)}
    text = as_json(document, indent=None)
    if path is None:
        sys.stdout.write(text)
        return 0
    saved = SavedPlacement(served.placement, text, _arrays(served), first_layer)
    if path == STANDARD:
        write_to_standard_output(saved, format_name)
        return 0
    formats.write_placement(saved, path, format_name)
    summary = {**document, "placement": served.placement.digest, "file": str(path)}
    line = f"{name} {served.version} is in {path}\n"
    return show(arguments, summary, line)


def run_import(arguments: argparse.Namespace) -> int:
    """Switch to the placement of a file, and print the target."""
    placement = read_placement(arguments, arguments.file)
    with connect(arguments) as client:
        if arguments.pin:
            return _print(arguments, client.pin(arguments.deployment, placement), "is pinned to")
        result = client.trigger(arguments.deployment, placement=placement, wait=arguments.wait)
    return _print(arguments, result, "goes to", f"\n{_MAY_MOVE_ON}")


def _arrays(served: ServedPlacement) -> dict[str, Any]:
    """What an .npz file says beside the placement."""
    return {
        "num_nodes": served.topology.num_nodes,
        "num_groups": served.topology.num_groups,
        "version": np.array(served.version, np.uint64),
    }


def _print(arguments: argparse.Namespace, result: TriggerResult, verb: str, note: str = "") -> int:
    name, digest = arguments.deployment, result.target.digest
    document = {"deployment": name, "in_force": result.in_force, "target": digest}
    line = f"{name} {verb} {digest.hex()}, and serves by {result.in_force}{note}\n"
    return show(arguments, document, line)
