"""Runs a scenario on a fleet: switches one after another, and faults meanwhile."""

from __future__ import annotations

import time

from trimtab_client.exceptions import TrimtabError, invalid
from trimtab_tools.simulate.fault_schedule import FaultSchedule
from trimtab_tools.simulate.fleet import Fleet
from trimtab_tools.simulate.scenario import Scenario, check_it_ends
from trimtab_tools.simulate.targets import RandomTargets

_POLL_S = 0.1


def run_scenario(fleet: Fleet, scenario: Scenario) -> str:
    """Run a scenario on a fleet that has just begun; returns what went wrong, or "".

    It goes on until all faults have happened. With plan "random" or "server", all ranks have
    then flipped once more after the last fault.

    Raises:
        InvalidArgumentError: a fault is about a server that the fleet has not started, the
            scenario has no end, or its plan does not fit the fleet's `balance`.
    """
    if any(fault.rank is None for fault in scenario.faults):
        fleet.own_server()
    check_it_ends(fleet.options, scenario)
    if (scenario.plan == "balance") != (fleet.balance is not None):
        raise invalid("plan", f"{scenario.plan!r} of a fleet whose balance is {fleet.balance!r}")
    run = _watch if scenario.plan == "balance" else _switch
    try:
        fleet.wait_in_force()
        return run(fleet, scenario)
    except TrimtabError as error:
        return str(error)


def _switch(fleet: Fleet, scenario: Scenario) -> str:
    """Switch until the scenario is done."""
    targets = RandomTargets(fleet.options)
    end, done, begun = time.monotonic() + scenario.seconds, 0, 0.0
    with FaultSchedule(fleet, scenario.faults) as schedule:
        while True:
            now, faults = time.monotonic(), fleet.state.faults
            enough = done >= scenario.switches and now >= end
            if enough and schedule.is_done and all(each.at < begun for each in faults):
                return ""
            if enough and now > end + fleet.patience:
                return _missing_faults(fleet)
            begun = now
            fleet.switch_to(targets.after(fleet.target) if scenario.plan == "random" else None)
            done += 1


def _watch(fleet: Fleet, scenario: Scenario) -> str:
    """Wait while the server balances: until the trace has been replayed, or the time is over."""
    last_step, progress_at = -1, time.monotonic()
    end = progress_at + scenario.seconds
    with FaultSchedule(fleet, scenario.faults) as schedule:
        while True:
            now, step = time.monotonic(), fleet.state.total().step
            enough = now >= end if scenario.seconds else _is_replayed(fleet)
            if enough and schedule.is_done:
                return ""
            if step > last_step and not enough:
                last_step, progress_at = step, now
            elif now > progress_at + fleet.patience:
                stuck = f"no step after {step} in {fleet.patience:g} s: {fleet.state.summary()}"
                return _missing_faults(fleet) if enough else stuck
            fleet.state.sleep(_POLL_S)


def _is_replayed(fleet: Fleet) -> bool:
    return fleet.state.windows.ended >= fleet.options.num_windows


def _missing_faults(fleet: Fleet) -> str:
    return f"not all faults have happened, only {[each.fault for each in fleet.state.faults]}"
