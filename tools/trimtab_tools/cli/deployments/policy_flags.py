"""The flags of a policy."""

from __future__ import annotations

import argparse
from typing import Any

from trimtab_client.exceptions import InvalidArgumentError
from trimtab_client.policies import FORMER, Mode, Policy
from trimtab_tools.cli.errors import UsageError

_FLAGS: tuple[tuple[str, type[Any], str, str], ...] = (
    ("half_life_steps", float, "STEPS", "half-life of the load estimate"),
    ("window_steps", float, "STEPS", "window of the load estimate; both 0: chosen from the load"),
    ("every_steps", int, "STEPS", "minimum from one decision to the next"),
    ("cooldown_steps", int, "STEPS", "minimum from one switch to the next"),
    ("least_gain", float, "X", "minimum fall of a layer's squared GPU loads for a move"),
    ("max_moves_per_layer", int, "N", "maximum number of moves in a layer of one improvement"),
    ("max_moves", int, "N", "maximum number of moves over all layers; 0: no limit"),
    (
        "replan_gap",
        float,
        "SHARE",
        "a layer that stays this far above the best imbalance may get a new plan",
    ),
    ("horizon_steps", int, "STEPS", "time in which a gain has to pay for its moves"),
    ("moe_share", float, "SHARE", "share of a step's time that the MoE layers take"),
    ("node_bandwidth", float, "B/S", "bytes per second of a GPU inside its node"),
    ("cross_node_bandwidth", float, "B/S", "bytes per second of a GPU from or to another node"),
)


def add_policy_flags(parser: argparse.ArgumentParser, absent: str) -> None:
    """Add a flag for each field; `absent` says what happens to a field without its flag."""
    group = parser.add_argument_group("policy", description=f"A value that is not given {absent}.")
    modes = [mode.value for mode in Mode if mode is not Mode.UNKNOWN]
    group.add_argument(
        "--mode", choices=modes, help="whether decisions are made, and whether they move experts"
    )
    for name, kind, unit, about in _FLAGS:
        group.add_argument(f"--{name.replace('_', '-')}", metavar=unit, type=kind, help=about)
    # Accepted only to say that it no longer exists.
    for name in FORMER:
        flag = f"--{name.replace('_', '-')}"
        group.add_argument(flag, dest=name, help=argparse.SUPPRESS)


def policy_of(arguments: argparse.Namespace) -> Policy:
    """The policy that the flags ask for.

    Raises:
        UsageError: a flag names a setting that no longer exists.
    """
    mode = None if arguments.mode is None else Mode(arguments.mode)
    names = (*(name for name, *_ in _FLAGS), *FORMER)
    try:
        return Policy(mode=mode, **{name: getattr(arguments, name) for name in names})
    except InvalidArgumentError as error:
        raise UsageError(str(error)) from error
