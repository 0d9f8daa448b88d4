"""A run from beginning to end: switches one after another, and faults meanwhile."""

from __future__ import annotations

import time

from trimtab_client.exceptions import TrimtabError, invalid
from trimtab_client.placement import Placement
from trimtab_tools.simulate.fleet import Fleet
from trimtab_tools.simulate.fault_schedule import FaultSchedule
from trimtab_tools.simulate.report import Report
from trimtab_tools.simulate.scenario import Scenario, check_end
from trimtab_tools.simulate.targets import RandomTargets

_TICK_S = 0.1


def play(fleet: Fleet, scenario: Scenario) -> Report:
    """Play a scenario on a fleet that has just begun, and end the fleet; see `carry_out`."""
    return fleet.finish(trouble=carry_out(fleet, scenario))


def carry_out(fleet: Fleet, scenario: Scenario) -> str:
    """Play a scenario on a fleet that has just begun; returns what could not be.

    It goes on until all faults have struck. Where ranks are told to switch, all have flipped
    once more after the last of them.

    Raises:
        InvalidArgumentError: a fault is about a server that is not the fleet's own, the
            scenario would have no end, or its plan is not the fleet's.
    """
    if any(fault.rank is None for fault in scenario.faults):
        fleet.own_server()
    check_end(fleet.options, scenario)
    if (scenario.plan == "balance") != (fleet.balance is not None):
        raise invalid("plan", f"{scenario.plan!r} of a fleet whose balance is {fleet.balance!r}")
    follow = _watch if scenario.plan == "balance" else _switch
    try:
        fleet.wait_in_force()
        return follow(fleet, scenario)
    except TrimtabError as error:
        return str(error)


def _switch(fleet: Fleet, scenario: Scenario) -> str:
    """Switch until all is done."""
    targets = RandomTargets(fleet.options)
    end, done, begun = time.monotonic() + scenario.seconds, 0, 0.0
    with FaultSchedule(fleet, scenario.faults) as injector:
        while True:
            now, faults = time.monotonic(), fleet.ledger.faults
            enough = done >= scenario.switches and now >= end
            if enough and injector.is_done and all(each.at < begun for each in faults):
                return ""
            if enough and now > end + fleet.patience:
                return _not_all_struck(fleet)
            begun = now
            fleet.switch_to(_target(fleet, scenario, targets))
            done += 1


def _watch(fleet: Fleet, scenario: Scenario) -> str:
    """See the trace replayed, or the time go by, while the server does what it thinks best."""
    last_step, came_to_it = -1, time.monotonic()
    end = came_to_it + scenario.seconds
    with FaultSchedule(fleet, scenario.faults) as injector:
        while True:
            now, step = time.monotonic(), fleet.ledger.total().step
            enough = now >= end if scenario.seconds else _is_replayed(fleet)
            if enough and injector.is_done:
                return ""
            if step > last_step and not enough:
                last_step, came_to_it = step, now
            elif now > came_to_it + fleet.patience:
                stuck = f"no step after {step} in {fleet.patience:g} s: {fleet.ledger.shown()}"
                return _not_all_struck(fleet) if enough else stuck
            fleet.ledger.wait_for(lambda: None, _TICK_S)


def _is_replayed(fleet: Fleet) -> bool:
    return fleet.ledger.windows.ended >= fleet.options.num_windows


def _not_all_struck(fleet: Fleet) -> str:
    return f"not all faults have struck, only {[each.fault for each in fleet.ledger.faults]}"


def _target(fleet: Fleet, scenario: Scenario, targets: RandomTargets) -> Placement | None:
    return targets.after(fleet.target) if scenario.plan == "random" else None
