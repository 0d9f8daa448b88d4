"""`trimtab deployments pin`, `unpin`, `rollback`, `export` and `import`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from trimtab_client.deployments import ServedPlacement
from trimtab_client.results import TriggerResult
from trimtab_tools.cli.command import add_name, add_option, server_command
from trimtab_tools.cli.connection import connect
from trimtab_tools.cli.files import check_output, placement_arrays, read_placement
from trimtab_tools.cli.json_output import as_document, as_json, show

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

_ROLLBACK = """\
examples:
  trimtab deployments rollback prod 2.3
  trimtab deployments rollback prod 3

`trimtab deployments get` shows the versions that it can go back to. The deployment stays pinned
until it is unpinned.
"""

_EXPORT = """\
examples:
  trimtab deployments export prod placement.npz
  trimtab deployments export prod --version 2.3 > placement.json

The commands import, pin, `trimtab trigger --placement` and `trimtab place --current` read both
kinds of files. For numpy.load, an .npz file has phy2log [layers, slots] and the sizes.
"""

_IMPORT = """\
examples:
  trimtab deployments import prod placement.npz
  trimtab deployments import prod placement.npz --pin

Without --pin the policy may move experts again later.
"""


def add_to(commands: Any) -> None:
    """Add the commands."""
    about = "Pin a deployment to one placement, whatever its loads are."
    with server_command(commands, "pin", run_pin, about, _PIN) as parser:
        add_name(parser)
        about = "the placement (default: the one in force)"
        add_option(parser, "file", "FILE", Path, about, nargs="?")
    about = "Let a deployment's policy decide again."
    with server_command(commands, "unpin", run_unpin, about, _UNPIN) as parser:
        add_name(parser)
    about = "Pin a deployment to a placement that was in force before."
    with server_command(commands, "rollback", run_roll_back, about, _ROLLBACK) as parser:
        add_name(parser)
        about = "a version such as 2.3, or only its generation: 3"
        add_option(parser, "version", "VERSION", str, about)
    about = "Write a placement to a file."
    with server_command(commands, "export", run_export, about, _EXPORT) as parser:
        add_name(parser)
        about = "an .npz or .json file (default: JSON to standard output)"
        add_option(parser, "file", "FILE", Path, about, nargs="?")
        about = "the version to export (default: the one in force)"
        add_option(parser, "--version", "V", str, about)
    about = "Switch a deployment to the placement in a file."
    with server_command(commands, "import", run_import, about, _IMPORT) as parser:
        add_name(parser)
        add_option(parser, "file", "FILE", Path, "the placement")
        parser.add_argument("--pin", action="store_true", help="pin the deployment to it")


def run_pin(arguments: argparse.Namespace) -> int:
    """Pin a deployment, and print the target."""
    placement = None if arguments.file is None else read_placement(arguments.file)
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
    check_output(arguments.file, "FILE")
    with connect(arguments) as client:
        served = client.get_placement(arguments.deployment, arguments.version)
    document = {"deployment": arguments.deployment, **as_document(served)}
    if arguments.file is None:
        sys.stdout.write(as_json(document, indent=None))
        return 0
    if arguments.file.suffix == ".json":
        arguments.file.write_text(as_json(document, indent=None))
    else:
        _write_npz(served, arguments.file)
    summary = {**document, "placement": served.placement.digest, "file": str(arguments.file)}
    line = f"{arguments.deployment} {served.version} is in {arguments.file}\n"
    return show(arguments, summary, line)


def run_import(arguments: argparse.Namespace) -> int:
    """Switch to the placement of a file, and print the target."""
    placement = read_placement(arguments.file)
    with connect(arguments) as client:
        if arguments.pin:
            return _print(arguments, client.pin(arguments.deployment, placement), "is pinned to")
        result = client.trigger(arguments.deployment, placement=placement)
    return _print(arguments, result, "goes to")


def _write_npz(served: ServedPlacement, path: Path) -> None:
    np.savez_compressed(
        path,
        **placement_arrays(served.placement),
        num_nodes=served.topology.num_nodes,
        num_groups=served.topology.num_groups,
        version=np.array(served.version, np.uint64),
    )


def _print(arguments: argparse.Namespace, result: TriggerResult, verb: str) -> int:
    name, digest = arguments.deployment, result.target.digest
    document = {"deployment": name, "in_force": result.in_force, "target": digest}
    line = f"{name} {verb} {digest.hex()}, and serves by {result.in_force}\n"
    return show(arguments, document, line)
