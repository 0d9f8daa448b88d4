"""A run from beginning to end: switches one after another, and faults meanwhile."""

from __future__ import annotations

import time

from trimtab_client.exceptions import TrimtabError
from trimtab_client.placement import Placement
from trimtab_client.simulate.fleet import Fleet
from trimtab_client.simulate.injector import Injector
from trimtab_client.simulate.report import Report
from trimtab_client.simulate.scenario import Scenario
from trimtab_client.simulate.targets import RandomTargets


def play(fleet: Fleet, scenario: Scenario) -> Report:
    """Play a scenario on a fleet that has just begun, and end the fleet.

    It goes on until all faults have struck, and all ranks have flipped once more after the
    last of them.

    Raises:
        InvalidArgumentError: a fault is about a server that is not the fleet's own.
    """
    if any(fault.rank is None for fault in scenario.faults):
        fleet.own_server()
    try:
        fleet.wait_in_force()
        trouble = _switch(fleet, scenario)
    except TrimtabError as error:
        trouble = str(error)
    return fleet.finish(trouble=trouble)


def _switch(fleet: Fleet, scenario: Scenario) -> str:
    """Switch until all is done; returns what could not be."""
    targets = RandomTargets(fleet.options)
    end, done, begun = time.monotonic() + scenario.seconds, 0, 0.0
    with Injector(fleet, scenario.faults) as injector:
        while True:
            now, faults = time.monotonic(), fleet.ledger.faults
            enough = done >= scenario.switches and now >= end
            if enough and injector.is_done and all(each.at < begun for each in faults):
                return ""
            if enough and now > end + fleet.patience:
                struck = [fault.fault for fault in faults]
                return f"not all faults have struck, only {struck}"
            begun = now
            fleet.switch_to(_target(fleet, scenario, targets))
            done += 1


def _target(fleet: Fleet, scenario: Scenario, targets: RandomTargets) -> Placement | None:
    return targets.after(fleet.target) if scenario.plan == "random" else None
