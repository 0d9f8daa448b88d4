"""`trimtab deployments create`, `update`, `forget-load` and `delete`."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from trimtab_client.deployments import DeploymentSpec
from trimtab_client.options import Topology
from trimtab_client.policies import Policy
from trimtab_tools.cli.connection import connect
from trimtab_tools.cli.deployments import views
from trimtab_tools.cli.deployments.policy_flags import add_policy_flags, policy_of
from trimtab_tools.cli.deployments.subcommand import add_name, add_subcommand
from trimtab_tools.cli.documents import as_json
from trimtab_tools.cli.errors import UsageError

_CREATE = """\
  trimtab deployments create prod --layers 58 --experts 256 --slots 288 --gpus 32 \\
      --nodes 4 --groups 8 --model deepseek-v3 --first-layer 3 --mode shadow

Its workers have to agree with it. Asked again for the same, it changes nothing.
"""

_UPDATE = """\
  trimtab deployments update prod --mode active
  trimtab deployments update prod --mode shadow --max-moves-per-layer 2
"""

_FORGET_LOAD = """\
  trimtab deployments forget-load prod

What its workers have reported so far is no traffic: of a warm-up or a benchmark, say.
"""

_DELETE = """\
  trimtab deployments delete prod

Its workers have to be gone.
"""


def add_to(commands: Any, server: str) -> None:
    """Add the commands."""
    about = "Create a deployment before its workers come."
    add_subcommand(commands, server, "create", run_create, about, _CREATE, add_name, _add_spec)
    about = "Change when, how far and whether a deployment's experts move."
    add_subcommand(commands, server, "update", run_update, about, _UPDATE, add_name, _add_changes)
    about = "Forget a deployment's load, and nothing else."
    add_subcommand(commands, server, "forget-load", run_forget_load, about, _FORGET_LOAD, add_name)
    about = "Forget a deployment."
    add_subcommand(commands, server, "delete", run_delete, about, _DELETE, add_name)


def run_create(arguments: argparse.Namespace) -> int:
    """Create, and tell what there is now."""
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
    """Change the policy, and tell all of it."""
    policy = policy_of(arguments)
    if policy == Policy():
        raise UsageError("nothing is to be changed: give a flag of the policy, such as --mode")
    with connect(arguments) as client:
        now = client.update_policy(arguments.deployment, policy)
    sys.stdout.write(as_json(now) if arguments.json else views.policy_text(now))
    return 0


def run_forget_load(arguments: argparse.Namespace) -> int:
    """Forget its load."""
    with connect(arguments) as client:
        client.forget_load(arguments.deployment)
    document = {"deployment": arguments.deployment, "load_forgotten": True}
    line = f"{arguments.deployment}: what its workers have reported so far is no traffic\n"
    sys.stdout.write(as_json(document) if arguments.json else line)
    return 0


def run_delete(arguments: argparse.Namespace) -> int:
    """Forget it."""
    with connect(arguments) as client:
        client.delete_deployment(arguments.deployment)
    document = {"deployment": arguments.deployment, "deleted": True}
    line = f"{arguments.deployment} is deleted\n"
    sys.stdout.write(as_json(document) if arguments.json else line)
    return 0


def _add_changes(parser: argparse.ArgumentParser) -> None:
    parser.usage = "trimtab deployments update NAME [options]"
    add_policy_flags(parser, "stays as it is")


def _add_spec(parser: argparse.ArgumentParser) -> None:
    parser.usage = (
        "trimtab deployments create NAME --layers L --experts E --slots R --gpus G [options]"
    )
    group = parser.add_argument_group("what it is")
    for flag, unit, name, about in (
        ("--layers", "L", "num_layers", "MoE layers"),
        ("--experts", "E", "num_experts", "logical experts of a layer"),
        ("--slots", "R", "num_replicas", "expert slots of a layer, over all GPUs"),
        ("--gpus", "G", "num_gpus", "GPUs"),
    ):
        group.add_argument(flag, metavar=unit, dest=name, type=int, required=True, help=about)
    for flag, name, about in (
        ("--nodes", "num_nodes", "nodes (default: 1)"),
        ("--groups", "num_groups", "router groups; above 1, each stays on one node (default: 1)"),
    ):
        group.add_argument(flag, metavar="N", dest=name, type=int, default=1, help=about)
    group.add_argument("--model", metavar="MODEL", default="", help="which it serves, for people")
    group.add_argument(
        "--first-layer",
        metavar="N",
        type=int,
        default=0,
        help="of the model's MoE layers, the first that it has (default: 0)",
    )
    add_policy_flags(parser, "is the server's default")
