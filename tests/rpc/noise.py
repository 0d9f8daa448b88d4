"""Small cases of `make bench ARGS=null`, and how often a right server would fail them.

`python -m tests.rpc.noise COUNT` plays each with so many seeds through the server's own loop in
this process, without sockets, and prints how many miss the goal: the error rates that
`test_noise.py` states.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import sys
from functools import partial

import numpy as np
import structlog

from tests.bench import null, stationary
from tests.bench.null import Case, Outcome, met
from tests.bench.played import STEPS
from tests.bench.policy import STEP_SECONDS, make_planner
from tests.bench.stationary import Traffic
from trimtab_client import Placement as ClientPlacement
from trimtab_client import Scope
from trimtab_protocol.messages import Hello, Report
from trimtab_server.domain.placement import placement_of
from trimtab_server.domain.topology import Topology
from trimtab_server.engine.events import DeploymentEvents
from trimtab_server.engine.load_aggregator import LoadAggregator, ReportingGroup
from trimtab_server.engine.next_action import DeploymentSnapshot
from trimtab_server.engine.planner import Planner
from trimtab_server.engine.rebalancer import Rebalancer
from trimtab_server.history.config import HistoryConfig
from trimtab_server.history.history import History
from trimtab_server.policy.policy import Policy

LAYERS, EXPERTS, TOPOLOGY = 2, 64, Topology(72, 8)
RANKS = 2
WINDOWS = 50


def _uneven(rng: np.random.Generator, windows: int, tokens: int) -> Traffic:
    share_LE = stationary.lognormal_shares(rng, LAYERS, EXPERTS)
    return stationary.independent(rng, share_LE, windows, STEPS * tokens, RANKS)


def _uniform(rng: np.random.Generator, windows: int) -> Traffic:
    return stationary.independent(rng, stationary.uniform_shares(1, 8), windows, STEPS, RANKS)


def _correlated(rng: np.random.Generator, windows: int) -> Traffic:
    share_LE = stationary.lognormal_shares(rng, LAYERS, EXPERTS)
    return stationary.correlated(rng, share_LE, windows, RANKS, lasting=2)


_PLANNED = partial(null.planned, topology=TOPOLOGY)

NULL = Case(
    "null", partial(_uneven, tokens=16), _PLANNED, null.at_the_end, Outcome(1, 0.02), WINDOWS
)
UNIFORM = Case(
    "uniform",
    _uniform,
    partial(null.untouched, topology=null.SMALL),
    null.at_the_end,
    Outcome(4, 0.001),
    WINDOWS,
)
POWER = Case(
    "power",
    partial(_uneven, tokens=64),
    partial(null.untouched, topology=TOPOLOGY),
    null.at_the_end,
    Outcome(20, 0.05),
    WINDOWS,
)
CORRELATED = Case("correlated", _correlated, _PLANNED, null.live, Outcome(0.2, 0.015), WINDOWS)

CASES = (NULL, UNIFORM, POWER, CORRELATED)


def traffic_of(case: Case, seed: int) -> Traffic:
    """What a seed draws."""
    return case.traffic(np.random.default_rng(seed), case.windows)


async def looped(planner: Planner, case: Case, scope: Scope, traffic: Traffic) -> Outcome:
    """What the server's loop makes of it, each decision in force before the next window."""
    first = case.first(traffic.share_LE)
    hellos = _hellos(1 if scope is Scope.GLOBAL else traffic.counts_TWLE.shape[1])
    group = ReportingGroup({hello.worker for hello in hellos}, apart=scope is Scope.SOURCE)
    (layers, experts), policy = traffic.share_LE.shape, Policy()
    events = DeploymentEvents("", History(HistoryConfig()))
    loads = LoadAggregator(layers, experts, policy.smoothing, events, lambda: group)
    topology = Topology(first.phy2log.shape[1], first.num_gpus)
    loop, placements = Rebalancer(planner, topology, 0, policy), [first]
    await loop.decide(_snapshot(loads, first, -1), loads)
    counts_WLE = np.zeros((len(hellos), layers, experts), np.int64)
    for window, recorded_by in enumerate(stationary.recorded(traffic, scope)):
        last = STEPS * (window + 1) - 1
        counts_WLE = counts_WLE + np.stack(recorded_by(placements[-1]))
        for hello, counts_LE in zip(hellos, counts_WLE, strict=True):
            loads.add_report(hello, Report(window + 1, last - STEPS + 1, last, counts_LE))
        decision, target, *_ = await loop.decide(_snapshot(loads, placements[-1], last), loads)
        served = placements[-1]
        if decision.moves and target is not None:
            served = ClientPlacement.of(target.phy2log, target.num_experts, target.num_gpus)
            loop.rollout_started()
        placements.append(served)
    return case.judge(placements, traffic)


def _hellos(workers: int) -> list[Hello]:
    nothing = placement_of([[0]], 1, 1)
    return [Hello("g", f"worker {each}", 1, 1, (), nothing) for each in range(workers)]


def _snapshot(loads: LoadAggregator, served: ClientPlacement, step: int) -> DeploymentSnapshot:
    placement = placement_of(served.phy2log, served.num_experts, served.num_gpus)
    at = (step + 1) * STEP_SECONDS
    return DeploymentSnapshot(at, step, loads.steps, placement, placement)


async def _print_rates(count: int) -> None:
    async with make_planner() as planner:
        for case, scope in itertools.product(CASES, Scope):
            outcomes = [
                await looped(planner, case, scope, traffic_of(case, seed)) for seed in range(count)
            ]
            missed = sum(not met(case.goal, outcome) for outcome in outcomes)
            means, worst = np.mean(outcomes, axis=0), np.max(outcomes, axis=0)
            print(f"{case.name}, {scope.value}: {missed} of {count} miss", flush=True)
            print(f"  mean moves {means[0]:.2f}, distance {means[1]:.4f}", flush=True)
            print(f"  worst moves {worst[0]:.2f}, distance {worst[1]:.4f}", flush=True)


if __name__ == "__main__":
    # Each deployment says that it begins.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    asyncio.run(_print_rates(int(sys.argv[1])))
