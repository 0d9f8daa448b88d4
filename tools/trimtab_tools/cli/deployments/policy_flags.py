"""The flags of a policy."""

from __future__ import annotations

import argparse
from typing import NamedTuple

from trimtab_client.exceptions import InvalidArgumentError
from trimtab_client.policies import FORMER, Mode, Policy
from trimtab_tools.cli.errors import UsageError


class _Flag(NamedTuple):
    """The flag of a setting. `default` is that of the server's `Policy`."""

    name: str
    default: float
    unit: str
    about: str


_FLAGS = (
    _Flag("half_life_steps", 0.0, "STEPS", "half-life of the load estimate"),
    _Flag(
        "window_steps",
        0.0,
        "STEPS",
        "window of the load estimate; if this and the half-life are 0, chosen from the load",
    ),
    _Flag("every_steps", 16, "STEPS", "minimum from one decision to the next"),
    _Flag("cooldown_steps", 0, "STEPS", "minimum from one switch to the next"),
    _Flag("least_gain", 0.001, "X", "minimum fall of a layer's squared GPU loads for a move"),
    _Flag("max_moves_per_layer", 4, "N", "maximum number of moves in a layer of one improvement"),
    _Flag("max_moves", 0, "N", "maximum number of moves over all layers; 0: no limit"),
    _Flag(
        "replan_gap",
        0.1,
        "SHARE",
        "a layer that stays this far above the best imbalance may get a new plan",
    ),
    _Flag("horizon_steps", 1000, "STEPS", "time in which a gain has to pay for its moves"),
    _Flag("moe_share", 0.5, "SHARE", "share of a step's time that the MoE layers take"),
    _Flag("node_bandwidth", 100e9, "B/S", "bytes per second of a GPU inside its node"),
    _Flag("cross_node_bandwidth", 25e9, "B/S", "bytes per second of a GPU from or to another node"),
)


def add_policy_flags(parser: argparse.ArgumentParser, absent: str) -> None:
    """Add a flag for each field; `absent` says what happens to a field without its flag."""
    group = parser.add_argument_group("policy", description=f"A value that is not given {absent}.")
    modes = [mode.value for mode in Mode if mode is not Mode.UNKNOWN]
    about = "whether decisions are made, and whether they move experts"
    default = "server's default: its setting balance, active unless it says otherwise"
    group.add_argument("--mode", choices=modes, help=f"{about} ({default})")
    for name, value, unit, about in _FLAGS:
        shown = f"{about} (server's default: {value:g})"
        flag = f"--{name.replace('_', '-')}"
        group.add_argument(flag, metavar=unit, type=type(value), help=shown)
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
    names = (*(flag.name for flag in _FLAGS), *FORMER)
    try:
        return Policy(mode=mode, **{name: getattr(arguments, name) for name in names})
    except InvalidArgumentError as error:
        raise UsageError(str(error)) from error
