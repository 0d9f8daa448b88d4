"""`python -m tests.e2e`: a fleet under load whose processes are killed again and again."""

from __future__ import annotations

import argparse
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import NamedTuple

from tests.bench.tables import machine, print_table
from trimtab_server.store.failpoints import STAGES
from trimtab_tools.simulate.fleet import Fleet
from trimtab_tools.simulate.history_tail import HistoryTail
from trimtab_tools.simulate.messages import SwitchPoint
from trimtab_tools.simulate.options import FleetOptions
from trimtab_tools.simulate.report import Report
from trimtab_tools.simulate.targets import RandomTargets

COLUMNS = ("killed", "times", "switches offered / applied / aborted", "tokens (wrong)")
COLUMNS += ("violations", "recovered after s, p50 / most")
CAPTION = """SIGKILL kills processes while one switch follows another. Recovered: all ranks have
flipped to another placement; this includes the start of the new process."""

Killer = Callable[[Fleet, random.Random, Counter[str]], None]

DEATHS = 3
"""Number of deaths at each failpoint."""

FAILPOINTS = tuple(f"save:{stage}=exit@{n}" for stage in STAGES for n in (8, 9, 10))
"""Of three saves in a row, one is of an offer, one of a commit, and one of the end of a switch."""


class Round(NamedTuple):
    """The process to kill, and how often."""

    name: str
    kill: Killer
    times: int


def main() -> int:
    """Print the table; returns 1 if anything was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="server deaths (default: 200)")
    parser.add_argument("--rounds", type=int, default=5, help="deaths of a worker at each point")
    parser.add_argument("--ranks", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rounds = [
        Round("the server, at random points", _kill_server, given.kills),
        *(Round(f"the server, {each}", _die_at(each), DEATHS) for each in FAILPOINTS),
        Round("a worker, at random points", _kill_rank, given.rounds),
        *(Round(f"a worker: {at.value}", _kill_rank_at(at), given.rounds) for at in SwitchPoint),
    ]
    print(f"Measured {machine()}; {given.ranks} ranks, seed {given.seed}.", flush=True)
    wrong = False

    def rows() -> Iterator[list[object]]:
        nonlocal wrong
        for each in rounds:
            report, phases = _run(each, given.ranks, given.seed)
            wrong = wrong or not report.ok
            yield [each.name, each.times, *_cells(report)]
            print(f"{dict(phases)} {report.trouble}".strip(), file=sys.stderr)

    print_table("A fleet under load, and kill -9", COLUMNS, rows(), CAPTION)
    return int(wrong)


def _run(round_: Round, ranks: int, seed: int) -> tuple[Report, Counter[str]]:
    """Run a round; returns its report, and the phases of switches at which processes died."""
    rng, phases = random.Random(seed), Counter[str]()
    options = FleetOptions(ranks=ranks, seed=seed, step_seconds=0.002)
    with Fleet(options) as fleet:
        fleet.wait_in_force()
        with _load(fleet):
            for _ in range(round_.times):
                round_.kill(fleet, rng, phases)
        return fleet.finish(), phases


def _kill_server(fleet: Fleet, rng: random.Random, phases: Counter[str]) -> None:
    # About the time of several switches.
    time.sleep(rng.random() * 0.3)
    fleet.faults.kill_server()
    phases[_phase(fleet.history)] += 1
    fleet.start_server()
    _wait_for_flip(fleet)


def _die_at(failpoint: str) -> Killer:
    def kill(fleet: Fleet, _: random.Random, phases: Counter[str]) -> None:
        fleet.faults.kill_server()
        fleet.start_server("--failpoints", failpoint)
        fleet.wait("the server to die", lambda: fleet.own_server().exit_code)
        # It is dead already: this records when.
        fleet.faults.kill_server()
        phases[_phase(fleet.history)] += 1
        fleet.start_server()
        _wait_for_flip(fleet)

    return kill


def _kill_rank(fleet: Fleet, rng: random.Random, phases: Counter[str]) -> None:
    time.sleep(rng.random() * 0.3)
    fleet.faults.kill_rank(rng.randrange(fleet.options.ranks))
    phases[_phase(fleet.history)] += 1
    _wait_for_flip(fleet)


def _kill_rank_at(point: SwitchPoint) -> Killer:
    def kill(fleet: Fleet, rng: random.Random, phases: Counter[str]) -> None:
        groups = fleet.state.groups_formed
        fleet.faults.kill_rank(rng.randrange(fleet.options.ranks), point)
        fleet.wait("a new group", lambda: fleet.state.groups_formed > groups or None)
        _wait_for_flip(fleet)
        phases[point.value] += 1

    return kill


def _wait_for_flip(fleet: Fleet) -> None:
    at = fleet.state.faults[-1].at
    fleet.wait("a flip by all ranks", lambda: _last_flip(fleet) > at or None)


def _phase(history: HistoryTail) -> str:
    """The last phase of the last switch in the history."""
    offered = history.lines("offered")
    version = offered[-1]["version"] if offered else None
    kinds = ("applied", "aborted", "commit_sent", "committed", "aborting", "prepared", "offered")
    return next((kind for kind in kinds if history.lines(kind, version=version)), "none")


def _last_flip(fleet: Fleet) -> float:
    """The time of the last flip by all ranks."""
    return max((switch.flipped_at for switch in fleet.state.switches_completed()), default=0.0)


@contextmanager
def _load(fleet: Fleet) -> Iterator[None]:
    """Ask for one switch after another, as soon as the server can offer them."""
    ending = threading.Event()
    targets = RandomTargets(fleet.options)

    def trigger() -> None:
        target = fleet.target
        while not ending.is_set():
            target = targets.after(target)
            while not ending.is_set() and isinstance(fleet.trigger_once(target, 5.0), Exception):
                ending.wait(0.01)

    thread = threading.Thread(target=trigger)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()


def _cells(report: Report) -> list[object]:
    verdict = report.verdict
    assert verdict is not None, "the fleet's own server keeps a history"
    after = [each.flipped_after for each in report.faults if each.flipped_after is not None]
    offered = f"{verdict.offered} / {report.applied} / {verdict.aborted}"
    return [
        offered,
        f"{report.tokens} ({report.wrong})",
        len(verdict.violations),
        f"{median(after):.1f} / {max(after):.1f}",
    ]


if __name__ == "__main__":
    sys.exit(main())
