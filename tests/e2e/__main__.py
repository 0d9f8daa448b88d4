"""`python -m tests.e2e`: a fleet under load, killed again and again; prints what came of it."""

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
from trimtab_tools.simulate.messages import SwitchPoint
from trimtab_tools.simulate.history_tail import HistoryTail
from trimtab_tools.simulate.options import FleetOptions
from trimtab_tools.simulate.report import Report
from trimtab_tools.simulate.targets import RandomTargets

COLUMNS = ("killed", "times", "switches offered / applied / aborted", "tokens (wrong)")
COLUMNS += ("violations", "recovered after s, p50 / most")
CAPTION = """All is killed by kill -9 while one switch follows another. Recovered: all ranks have
flipped to another placement; the start of the new process is part of it."""

Killer = Callable[[Fleet, random.Random, Counter[str]], None]

DEATHS = 3
"""At each failpoint."""

FAILPOINTS = tuple(f"save:{stage}=exit@{n}" for stage in STAGES for n in (8, 9, 10))
"""Of three saves one after another, one is of an offer, one of a commit, and one of the end."""


class Round(NamedTuple):
    """What is killed, and how often."""

    name: str
    kill: Killer
    times: int


def main() -> int:
    """Print the table; 1 if anything was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="of the server (default: 200)")
    parser.add_argument("--rounds", type=int, default=5, help="at each point of a worker")
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
            report, struck = _run(each, given.ranks, given.seed)
            wrong = wrong or not report.ok
            yield [each.name, each.times, *_cells(report)]
            print(f"{dict(struck)} {report.trouble}".strip(), file=sys.stderr)

    print_table("A fleet under load, and kill -9", COLUMNS, rows(), CAPTION)
    return int(wrong)


def _run(round_: Round, ranks: int, seed: int) -> tuple[Report, Counter[str]]:
    """What came of it, and what was under way when it struck."""
    rng, struck = random.Random(seed), Counter[str]()
    options = FleetOptions(ranks=ranks, seed=seed, step_seconds=0.002)
    with Fleet(options) as fleet:
        fleet.wait_in_force()
        with _load(fleet):
            for _ in range(round_.times):
                round_.kill(fleet, rng, struck)
        return fleet.finish(), struck


def _kill_server(fleet: Fleet, rng: random.Random, struck: Counter[str]) -> None:
    # Several switches take about as long.
    time.sleep(rng.random() * 0.3)
    fleet.kill_server()
    struck[_under_way(fleet.history)] += 1
    fleet.start_server()
    _wait_for_flip(fleet)


def _die_at(failpoint: str) -> Killer:
    def kill(fleet: Fleet, _: random.Random, struck: Counter[str]) -> None:
        fleet.kill_server()
        fleet.start_server("--failpoints", failpoint)
        server = fleet.own_server()
        fleet.wait("the server to die", lambda: not server.is_ready or None)
        # It is dead already: this notes when.
        fleet.kill_server()
        struck[_under_way(fleet.history)] += 1
        fleet.start_server()
        _wait_for_flip(fleet)

    return kill


def _kill_rank(fleet: Fleet, rng: random.Random, struck: Counter[str]) -> None:
    time.sleep(rng.random() * 0.3)
    fleet.kill_rank(rng.randrange(fleet.options.ranks))
    struck[_under_way(fleet.history)] += 1
    _wait_for_flip(fleet)


def _kill_rank_at(point: SwitchPoint) -> Killer:
    def kill(fleet: Fleet, rng: random.Random, struck: Counter[str]) -> None:
        groups = fleet.ledger.groups
        fleet.kill_rank(rng.randrange(fleet.options.ranks), point)
        fleet.wait("a new group", lambda: fleet.ledger.groups > groups or None)
        _wait_for_flip(fleet)
        struck[point.value] += 1

    return kill


def _wait_for_flip(fleet: Fleet) -> None:
    at = fleet.ledger.faults[-1].at
    fleet.wait("a flip by all ranks", lambda: _last_flip(fleet) > at or None)


def _under_way(history: HistoryTail) -> str:
    """What the server had noted of the last switch."""
    offered = history.lines("offered")
    version = offered[-1]["version"] if offered else None
    kinds = ("applied", "aborted", "commit_sent", "committed", "aborting", "prepared", "offered")
    return next((kind for kind in kinds if history.lines(kind, version=version)), "none")


def _last_flip(fleet: Fleet) -> float:
    """When all ranks have flipped last."""
    whole = [
        switch.flipped_at for switch in list(fleet.ledger.switches.values()) if switch.is_whole
    ]
    return max(whole, default=0.0)


@contextmanager
def _load(fleet: Fleet) -> Iterator[None]:
    """One switch after another, as soon as they can be offered."""
    ending = threading.Event()
    targets = RandomTargets(fleet.options)

    def trigger() -> None:
        target = fleet.target
        while not ending.is_set():
            target = targets.after(target)
            while not ending.is_set() and isinstance(fleet.ask(target, 5.0), Exception):
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
