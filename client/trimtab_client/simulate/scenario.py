"""What to do with a fleet: how often to switch, where to, and what goes wrong meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from trimtab_client.checks import integer, real
from trimtab_client.exceptions import invalid
from trimtab_client.simulate.faults import Fault

Plan = Literal["random", "server"]


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """What to do with a fleet.

    Attributes:
        switches: least number of placements to switch to.
        seconds: least time to go on doing so.
        plan: where to: to random placements, or to what the server plans from what the
            ranks have counted.
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
        if self.plan not in ("random", "server"):
            raise invalid("plan", f"{self.plan!r} is not one of ['random', 'server']")
