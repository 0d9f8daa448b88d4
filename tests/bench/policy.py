"""Replays of real traffic, balanced by the server's own loop in this process, by policy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from tests.bench import played
from tests.bench.loads import trace
from tests.bench.options import Options
from tests.bench.played import STEPS, Played
from tests.bench.replay import REPLAYS
from trimtab_protocol.messages import Hello, Report
from trimtab_protocol.placement import Placement
from trimtab_server.domain.placement import placement_of, tensor_of
from trimtab_server.domain.topology import Topology
from trimtab_server.engine.config import Limits
from trimtab_server.engine.events import DeploymentEvents
from trimtab_server.engine.load_aggregator import LoadAggregator, ReportingGroup
from trimtab_server.engine.next_action import DeploymentSnapshot
from trimtab_server.engine.planner import Planner
from trimtab_server.engine.queue import SolverQueue
from trimtab_server.engine.rebalancer import Rebalancer
from trimtab_server.history.config import HistoryConfig
from trimtab_server.history.history import History
from trimtab_server.metrics.recorder import Recorder
from trimtab_server.policy.policy import Policy
from trimtab_server.solver.backends.select import backend_for

STEP_SECONDS = 0.03
_HELLO = Hello("g", "w", 1, 1, (), placement_of([[0]], 1, 1))
_ONE = ReportingGroup({"w"}, apart=False)

POLICIES = {
    played.DEFAULT: Policy(),
    "half-life of 16 steps": Policy(half_life_steps=16),
    "window of 64 steps": Policy(window_steps=64),
    "at most 2 moves a layer": Policy(max_moves_per_layer=2),
}


def run(options: Options) -> None:
    """Print the loop's policies beside full, aligned re-plans."""
    names = list(REPLAYS)[2:] if options.quick else list(REPLAYS)
    for name in names:
        load_TLE = torch.from_numpy(trace(name))[: 20 if options.quick else None]
        topology = REPLAYS[name]
        table = played.replans(load_TLE, topology)
        table |= {label: looped(load_TLE, topology, each) for label, each in POLICIES.items()}
        spent = table[played.DEFAULT].outcome.moves
        table[played.AS_MANY] = played.with_as_many_moves(load_TLE, topology, spent)
        played.print_played(name, topology, table)


def looped(load_TLE: Tensor, topology: Topology, policy: Policy) -> Played:
    """A trace balanced by a policy, each decision in force before the next window."""
    return asyncio.run(_looped(load_TLE, topology, policy))


async def _looped(load_TLE: Tensor, topology: Topology, policy: Policy) -> Played:
    results, events = [], DeploymentEvents("", History(HistoryConfig()))
    loads = LoadAggregator(*load_TLE.shape[1:], policy.smoothing, events, lambda: _ONE)
    served, counts_LE = played.untouched(load_TLE, topology), np.zeros(load_TLE.shape[1:], np.int64)
    async with make_planner() as planner:
        loop = Rebalancer(planner, topology, 0, policy)
        for window, (now_LE, next_LE) in enumerate(pairwise(load_TLE)):
            before, last = served, STEPS * (window + 1) - 1
            if not window:
                # A server has looked before the first report: so it knows how long steps take.
                await loop.decide(_snapshot(loads, served, -1), loads)
            counts_LE = counts_LE + now_LE.long().numpy()
            loads.add_report(_HELLO, Report(window + 1, last - STEPS + 1, last, counts_LE))
            decision, target, *_ = await loop.decide(_snapshot(loads, served, last), loads)
            if decision.moves and target is not None:
                served = target
                loop.rollout_started()
            results.append(played.live(tensor_of(served), tensor_of(before), next_LE, topology))
    return Played(*map(list, zip(*results, strict=True)))


def _snapshot(loads: LoadAggregator, served: Placement, step: int) -> DeploymentSnapshot:
    at = (step + 1) * STEP_SECONDS
    return DeploymentSnapshot(at, step, loads.steps, served, served)


@asynccontextmanager
async def make_planner() -> AsyncIterator[Planner]:
    """A server's planner, with the compiled backend."""
    queue = SolverQueue(4, Recorder())
    backend = backend_for("cpu", torch.device("cpu"))
    yield Planner(queue, backend, torch.device("cpu"), Limits(), "fast", Recorder())
    await queue.close()
