"""Counts moves when little or nothing can be gained, with a real server.

Every move here is due to noise, except in the case `power`, which shows that a server that moves
little can still move. The server is a process, and sessions use sockets, in lockstep.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from statistics import mean
from typing import NamedTuple

import numpy as np
import torch

from tests.bench import stationary
from tests.bench.light import LightGroup
from tests.bench.lockstep import play
from tests.bench.options import Options
from tests.bench.played import STEPS
from tests.bench.stationary import TOP, Shares, Traffic
from tests.bench.tables import print_table
from tests.servers import server_process
from trimtab_client import Placement, Scope
from trimtab_server.domain.topology import Topology
from trimtab_server.solver import evaluate, place, settings_for

RANKS = 4
REPORT_SECONDS = 0.01

LAYERS, EXPERTS, LARGE = 4, 256, Topology(288, 32)
SMALL = Topology(8, 4)

QUICK_WINDOWS = 4

CAPTION = (
    f"A server process and {RANKS} workers, over sockets; a window is {STEPS} steps. Mean over the "
    "seeds, and in brackets the worst of them. Moves are net, a layer; of the correlated cases, a "
    "layer and window. Distance: of the null and power cases the imbalance at the end above 1, by "
    "the shares that tokens were drawn from; of the correlated ones, how far live balancedness (of "
    "a placement on the next window) is below that of never moving. Goals are for every seed. "
    "Correlated loads in scope global are for comparison: one worker cannot tell requests apart."
)


class Outcome(NamedTuple):
    """The result of a case: moves a layer, in all or per window, and the caption's distance."""

    moves: float
    distance: float


class Case(NamedTuple):
    """A kind of traffic, the first placement, and how the result is measured.

    `goal` is the upper limit of the outcome.
    """

    name: str
    traffic: Callable[[np.random.Generator, int], Traffic]
    first: Callable[[Shares], Placement]
    judge: Callable[[Sequence[Placement], Traffic], Outcome]
    goal: Outcome
    windows: int
    scopes: Sequence[Scope] = tuple(Scope)
    without_goal: Sequence[Scope] = ()


def run(options: Options) -> None:
    """Print the outcome of each case in each scope."""
    columns = ["case", "scope", "moves", "at most", "distance", "at most", "goals"]
    print_table("Little to gain", columns, _rows(options), CAPTION)


def at_the_end(placements: Sequence[Placement], traffic: Traffic) -> Outcome:
    """All moves, and the imbalance of the last placement above 1, by the true shares."""
    return Outcome(sum(_moves(placements)), _imbalance(placements[-1], traffic.share_LE) - 1)


def live(placements: Sequence[Placement], traffic: Traffic) -> Outcome:
    """Moves per window, and how far the balance of next windows is below that of never moving."""
    next_TLE = traffic.counts_TWLE.sum(1)[1:]
    served = [_balancedness(*each) for each in zip(placements[1:-1], next_TLE, strict=True)]
    never = [_balancedness(placements[0], next_LE) for next_LE in next_TLE]
    return Outcome(mean(_moves(placements[:-1])), mean(never) - mean(served))


def planned(share_LE: Shares, topology: Topology) -> Placement:
    """The placement that the server's planner makes for the true shares."""
    settings = settings_for("balanced")
    phy2log_LR = place(torch.from_numpy(share_LE), topology, settings=settings).phy2log
    return Placement.of(phy2log_LR.numpy(), share_LE.shape[1], topology.num_gpus)


def untouched(share_LE: Shares, topology: Topology) -> Placement:
    """The placement that an engine loads at first."""
    layers, experts = share_LE.shape
    return Placement.untouched(layers, experts, topology.num_replicas, topology.num_gpus)


async def served(address: str, name: str, case: Case, scope: Scope, traffic: Traffic) -> Outcome:
    """Run one case on a server that does not know a deployment of this name yet."""
    workers = traffic.counts_TWLE.shape[1]
    first = case.first(traffic.share_LE)
    group = LightGroup(address, first, name, workers, scope)
    placements = await play(group, address, stationary.recorded(traffic, scope))
    return case.judge(placements, traffic)


def _rows(options: Options) -> Iterator[list[str]]:
    seeds = range(1 if options.quick else options.seeds)
    seconds = str(REPORT_SECONDS)
    with server_process("--balance", "active", "--report-seconds", seconds) as server:
        for case in CASES:
            windows = QUICK_WINDOWS if options.quick else case.windows
            traffics = [case.traffic(np.random.default_rng(seed), windows) for seed in seeds]
            for scope in case.scopes:
                serving = _all_served(server.address, case, scope, traffics)
                yield _row(case, scope, asyncio.run(serving))


async def _all_served(
    address: str, case: Case, scope: Scope, traffics: Iterable[Traffic]
) -> list[Outcome]:
    """The outcomes of all seeds, which run as deployments at the same time."""
    each = enumerate(traffics)
    names = [(f"{case.name}, {scope.value}, {seed}", traffic) for seed, traffic in each]
    plays = (served(address, name, case, scope, traffic) for name, traffic in names)
    return await asyncio.gather(*plays)


def _row(case: Case, scope: Scope, outcomes: Sequence[Outcome]) -> list[str]:
    moves, distances = zip(*outcomes, strict=True)
    cells = [case.name, scope.value, _worst(moves, ".2f"), "", _worst(distances, ".4f"), "", "none"]
    if scope not in case.without_goal:
        good = sum(met(case.goal, outcome) for outcome in outcomes)
        cells[3], cells[5] = f"{case.goal.moves:g}", f"{case.goal.distance:.3f}"
        cells[6] = "met" if good == len(outcomes) else f"missed: met by {good} of {len(outcomes)}"
    return cells


def met(goal: Outcome, outcome: Outcome) -> bool:
    """Whether an outcome does not exceed its goal."""
    return outcome.moves <= goal.moves and outcome.distance <= goal.distance


def _worst(values: Sequence[float], form: str) -> str:
    return f"{mean(values):{form}} ({max(values):{form}})"


def _moves(placements: Sequence[Placement]) -> list[float]:
    """Net moves a layer in each window, 0 without a switch."""
    return [_moves_of(*each) for each in pairwise(placements)]


def _moves_of(before: Placement, after: Placement) -> float:
    if after.digest == before.digest:
        return 0.0
    any_LE = np.ones(after.logcnt.shape)
    moves_L = evaluate(after.phy2log, any_LE, after.num_gpus, current=before.phy2log).moves
    assert moves_L is not None
    return float(moves_L.double().mean())


def _imbalance(placement: Placement, load_LE: Shares) -> float:
    return float(evaluate(placement.phy2log, load_LE, placement.num_gpus).imbalance.mean())


def _balancedness(placement: Placement, load_LE: Shares) -> float:
    return float(evaluate(placement.phy2log, load_LE, placement.num_gpus).balancedness.mean())


def _uneven(rng: np.random.Generator, windows: int, tokens: int) -> Traffic:
    share_LE = stationary.lognormal_shares(rng, LAYERS, EXPERTS)
    return stationary.independent(rng, share_LE, windows, STEPS * TOP * tokens, RANKS)


def _uniform(rng: np.random.Generator, windows: int) -> Traffic:
    share_LE = stationary.uniform_shares(1, SMALL.num_replicas)
    return stationary.independent(rng, share_LE, windows, STEPS, RANKS)


def _correlated(rng: np.random.Generator, windows: int, lasting: float) -> Traffic:
    share_LE = stationary.lognormal_shares(rng, LAYERS, EXPERTS)
    return stationary.correlated(rng, share_LE, windows, RANKS, lasting=lasting)


_PLANNED = partial(planned, topology=LARGE)
_BY_RANK = {"scopes": (Scope.SOURCE, Scope.GLOBAL), "without_goal": (Scope.GLOBAL,)}

CASES = [
    Case(
        "null, 16 tokens a step",
        partial(_uneven, tokens=16),
        _PLANNED,
        at_the_end,
        Outcome(3, 0.01),
        156,
    ),
    Case(
        "null, 256 tokens a step",
        partial(_uneven, tokens=256),
        _PLANNED,
        at_the_end,
        Outcome(2, 0.005),
        156,
    ),
    Case(
        "uniform, 1 token a step",
        _uniform,
        partial(untouched, topology=SMALL),
        at_the_end,
        Outcome(4, 0.001),
        125,
    ),
    Case(
        "power, 16 tokens a step",
        partial(_uneven, tokens=16),
        partial(untouched, topology=LARGE),
        at_the_end,
        Outcome(250, 0.06),
        156,
    ),
    Case(
        "correlated, topics of 2 windows",
        partial(_correlated, lasting=2),
        _PLANNED,
        live,
        Outcome(0.1, 0.003),
        160,
        **_BY_RANK,
    ),
    Case(
        "correlated, topics of 8 windows",
        partial(_correlated, lasting=8),
        _PLANNED,
        live,
        Outcome(0.3, 0.006),
        160,
        **_BY_RANK,
    ),
]
