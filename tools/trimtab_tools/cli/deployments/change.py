"""`trimtab deployments create`, `update`, `forget-load` and `delete`."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from trimtab_client.deployments import DeploymentSpec
from trimtab_client.options import Topology
from trimtab_client.policies import Policy
from trimtab_tools.cli.command import add_name, add_subcommand
from trimtab_tools.cli.connection import connect
from trimtab_tools.cli.deployments import views
from trimtab_tools.cli.deployments.policy_flags import add_policy_flags, policy_of
from trimtab_tools.cli.errors import UsageError
from trimtab_tools.cli.json_output import as_json

_CREATE = """\
  trimtab deployments create prod --layers 58 --experts 256 --slots 288 --gpus 32 \\
      --nodes 4 --groups 8 --model deepseek-v3 --first-layer 3 --mode shadow

Its workers must agree with these values. To create the same deployment again changes nothing.
"""

_UPDATE = """\
  trimtab deployments update prod --mode active
  trimtab deployments update prod --mode shadow --max-moves-per-layer 2
"""

_FORGET_LOAD = """\
  trimtab deployments forget-load prod

For use after a warm-up or a benchmark: what the workers have reported so far is not used.
"""

_DELETE = """\
  trimtab deployments delete prod

No worker may be connected.
"""


def add_to(commands: Any, server: str) -> None:
    """Add the commands."""
    about = "Create a deployment before its workers connect."
    add_subcommand(commands, server, "create", run_create, about, _CREATE, add_name, _add_spec)
    about = "Change the policy of a deployment: whether, when and how far its experts move."
    add_subcommand(commands, server, "update", run_update, about, _UPDATE, add_name, _add_changes)
    about = "Forget a deployment's load, and nothing else."
    add_subcommand(commands, server, "forget-load", run_forget_load, about, _FORGET_LOAD, add_name)
    about = "Delete a deployment."
    add_subcommand(commands, server, "delete", run_delete, about, _DELETE, add_name)


def run_create(arguments: argparse.Namespace) -> int:
    """Create a deployment, and print it."""
    topology = Topology(
        arguments.num_replicas, arguments.num_gpus, arguments.num_nodes, arguments.num_groups
    )
    spec = DeploymentSpec(
        name=arguments.deployment,
        num_layers=arguments.num_layers,
        num_experts=arguments.num_experts,
        topology=topology,
        model=arguments.model,
        first_layer=arguments.first_layer,
    )
    with connect(arguments) as client:
        found = client.create_deployment(spec, policy_of(arguments))
    line = f"{found.spec.name}: {views.shape(found.spec)}; {views.mode_of(found)}\n"
    sys.stdout.write(as_json(found) if arguments.json else line)
    return 0


def run_update(arguments: argparse.Namespace) -> int:
    """Change the policy, and print the whole policy."""
    policy = policy_of(arguments)
    if policy == Policy():
        raise UsageError("nothing to change: give a flag of the policy, such as --mode")
    with connect(arguments) as client:
        now = client.update_policy(arguments.deployment, policy)
    sys.stdout.write(as_json(now) if arguments.json else views.policy_text(now))
    return 0


def run_forget_load(arguments: argparse.Namespace) -> int:
    """Forget the load of a deployment."""
    with connect(arguments) as client:
        client.forget_load(arguments.deployment)
    document = {"deployment": arguments.deployment, "load_forgotten": True}
    line = f"{arguments.deployment}: its load is forgotten\n"
    sys.stdout.write(as_json(document) if arguments.json else line)
    return 0


def run_delete(arguments: argparse.Namespace) -> int:
    """Delete a deployment."""
    with connect(arguments) as client:
        client.delete_deployment(arguments.deployment)
    document = {"deployment": arguments.deployment, "deleted": True}
    line = f"{arguments.deployment} is deleted\n"
    sys.stdout.write(as_json(document) if arguments.json else line)
    return 0


def _add_changes(parser: argparse.ArgumentParser) -> None:
    parser.usage = "trimtab deployments update NAME [options]"
    add_policy_flags(parser, "does not change")


def _add_spec(parser: argparse.ArgumentParser) -> None:
    parser.usage = (
        "trimtab deployments create NAME --layers L --experts E --slots R --gpus G [options]"
    )
    group = parser.add_argument_group("deployment")
    for flag, unit, name, about in (
        ("--layers", "L", "num_layers", "number of MoE layers"),
        ("--experts", "E", "num_experts", "number of logical experts in a layer"),
        ("--slots", "R", "num_replicas", "number of expert slots in a layer, over all GPUs"),
        ("--gpus", "G", "num_gpus", "number of GPUs"),
    ):
        group.add_argument(flag, metavar=unit, dest=name, type=int, required=True, help=about)
    for flag, name, about in (
        ("--nodes", "num_nodes", "number of nodes (default: 1)"),
        (
            "--groups",
            "num_groups",
            "number of router groups; if above 1, each stays on one node (default: 1)",
        ),
    ):
        group.add_argument(flag, metavar="N", dest=name, type=int, default=1, help=about)
    group.add_argument("--model", metavar="MODEL", default="", help="name of the model, for people")
    group.add_argument(
        "--first-layer",
        metavar="N",
        type=int,
        default=0,
        help="number of its first layer in the model (default: 0)",
    )
    add_policy_flags(parser, "is the server's default")
