"""What to do with a fleet: how often to switch, where to, and what goes wrong meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from trimtab_client.checks import integer, real
from trimtab_client.exceptions import invalid
from trimtab_tools.simulate.faults import Fault
from trimtab_tools.simulate.options import FleetOptions

Plan = Literal["random", "server", "balance"]

Balance = Literal["active", "shadow"]
"""What a server makes of its decisions: it moves experts, or only says that it would."""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """What to do with a fleet.

    Attributes:
        switches: least number of placements to switch to. Not of plan "balance".
        seconds: least time to go on doing so; of plan "balance", how long to go on, where it
            is not 0: then until the trace has been replayed.
        plan: where to: "random" placements, what the "server" plans from what the ranks have
            counted, whenever it is asked to; or "balance": it is not asked, and decides by
            itself whether experts move, and when.
        faults: each strikes once.

    Raises:
        InvalidArgumentError: a value is out of its range.
    """

    switches: int = 10
    seconds: float = 0.0
    plan: Plan = "random"
    faults: tuple[Fault, ...] = ()

    def __post_init__(self) -> None:
        integer(self.switches, "switches", low=0)
        if not 0 <= real(self.seconds, "seconds") < 1e6:
            raise invalid("seconds", f"{self.seconds} is not in [0, 10^6)")
        if self.plan not in get_args(Plan):
            raise invalid("plan", f"{self.plan!r} is not one of {list(get_args(Plan))}")


def check_end(options: FleetOptions, scenario: Scenario) -> None:
    """Refuse a scenario that says nothing of when it ends.

    Raises:
        InvalidArgumentError: the server balances made-up traffic for no time.
    """
    if scenario.plan == "balance" and options.trace is None and not scenario.seconds:
        raise invalid("seconds", "0 is no time to balance made-up traffic: give more, or a trace")
