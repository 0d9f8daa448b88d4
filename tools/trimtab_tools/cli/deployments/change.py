"""`trimtab deployments create`, `update` and `forget-load`."""

from __future__ import annotations

import argparse
from typing import Any

from trimtab_client.deployments import DeploymentSpec
from trimtab_client.options import Topology
from trimtab_client.policies import Policy
from trimtab_protocol.messages import SwitchedBy
from trimtab_tools.cli.command import (
    add_name,
    add_nodes,
    add_option,
    from_arguments,
    server_command,
)
from trimtab_tools.cli.connection import connect
from trimtab_tools.cli.deployments import views
from trimtab_tools.cli.deployments.policy_flags import add_policy_flags, policy_of
from trimtab_tools.cli.errors import UsageError
from trimtab_tools.cli.json_output import show

_CREATE = """\
examples:
  trimtab deployments create prod --layers 58 --experts 256 --slots 288 --gpus 32 \\
      --nodes 4 --groups 8 --model deepseek-v3 --first-layer 3 --mode shadow

Its workers must agree with these values. To create the same deployment again changes nothing.
"""

_UPDATE = """\
examples:
  trimtab deployments update prod --mode active
  trimtab deployments update prod --mode shadow --max-moves-per-layer 2
"""

_FORGET_LOAD = """\
examples:
  trimtab deployments forget-load prod

For use after a warm-up or a benchmark: what the workers have reported so far is not used.
"""


def add_to(commands: Any) -> None:
    """Add the commands."""
    about = "Create a deployment before its workers connect."
    with server_command(commands, "create", run_create, about, _CREATE) as parser:
        needed = "--layers L --experts E --slots R --gpus G"
        parser.usage = f"trimtab deployments create NAME {needed} [options]"
        add_name(parser)
        _add_spec(parser.add_argument_group("deployment"))
        add_policy_flags(parser, "is the server's default")
    about = "Change the policy of a deployment: whether, when and how far its experts move."
    with server_command(commands, "update", run_update, about, _UPDATE) as parser:
        parser.usage = "trimtab deployments update NAME [options]"
        add_name(parser)
        add_policy_flags(parser, "does not change")
    about = "Forget a deployment's load, and nothing else."
    with server_command(commands, "forget-load", run_forget_load, about, _FORGET_LOAD) as parser:
        add_name(parser)


def _add_spec(group: argparse._ArgumentGroup) -> None:
    for flag, unit, name, about in (
        ("--layers", "L", "num_layers", "number of MoE layers"),
        ("--experts", "E", "num_experts", "number of logical experts in a layer"),
        ("--slots", "R", "num_replicas", "number of expert slots in a layer, over all GPUs"),
        ("--gpus", "G", "num_gpus", "number of GPUs"),
    ):
        add_option(group, flag, unit, int, about, dest=name, required=True)
    add_nodes(group)
    add_option(group, "--model", "MODEL", str, "name of the model, for people", default="")
    about = "number of its first layer in the model (default: 0)"
    add_option(group, "--first-layer", "N", int, about, default=0)
    kinds, about = [each.value for each in SwitchedBy], "who moves the weights (default: workers)"
    group.add_argument("--switched-by", choices=kinds, default=kinds[0], help=about)


def run_create(arguments: argparse.Namespace) -> int:
    """Create a deployment, and print it."""
    spec = DeploymentSpec(
        name=arguments.deployment,
        num_layers=arguments.num_layers,
        num_experts=arguments.num_experts,
        topology=from_arguments(Topology, arguments),
        model=arguments.model,
        first_layer=arguments.first_layer,
        switched_by=SwitchedBy(arguments.switched_by),
    )
    with connect(arguments) as client:
        found = client.create_deployment(spec, policy_of(arguments))
    line = f"{found.spec.name}: {views.shape(found.spec)}; {views.mode_of(found)}\n"
    return show(arguments, found, line)


def run_update(arguments: argparse.Namespace) -> int:
    """Change the policy, and print the whole policy."""
    policy = policy_of(arguments)
    if policy == Policy():
        raise UsageError("nothing to change: give a flag of the policy, such as --mode")
    with connect(arguments) as client:
        now = client.update_policy(arguments.deployment, policy)
    return show(arguments, now, views.policy_text(now))


def run_forget_load(arguments: argparse.Namespace) -> int:
    """Forget the load of a deployment."""
    with connect(arguments) as client:
        client.forget_load(arguments.deployment)
    document = {"deployment": arguments.deployment, "load_forgotten": True}
    return show(arguments, document, f"{arguments.deployment}: its load is forgotten\n")
