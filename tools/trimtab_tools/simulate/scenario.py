"""What to do with a fleet: where to switch, how often, and which faults to cause meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from trimtab_client.checks import integer, real
from trimtab_client.exceptions import invalid
from trimtab_tools.simulate.faults import Fault
from trimtab_tools.simulate.options import FleetOptions

Plan = Literal["random", "server", "balance"]

Balance = Literal["active", "shadow"]
"""Whether a server that balances by itself moves experts, or only logs that it would."""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """What to do with a fleet.

    Attributes:
        switches: the fleet switches to at least this many placements. Not used by plan "balance".
        seconds: the fleet goes on for at least this long. With plan "balance", how long it goes
            on; 0 means until the trace has been replayed.
        plan: where to switch: to "random" placements; to what the "server" plans, whenever it
            is asked, from what the ranks have counted; or "balance": nobody asks the server, and
            it decides by itself whether and when experts move.
        faults: each is caused once.

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


def check_it_ends(options: FleetOptions, scenario: Scenario) -> None:
    """Refuse a scenario that has no end.

    Raises:
        InvalidArgumentError: the server balances synthetic traffic for no given time.
    """
    if scenario.plan == "balance" and options.trace is None and not scenario.seconds:
        raise invalid("seconds", "0 has no end with synthetic traffic: give seconds, or a trace")
