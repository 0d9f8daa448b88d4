"""Replays of real traffic, balanced by the server's own loop in this process, by policy."""

from __future__ import annotations

import asyncio
from functools import partial

import torch
from torch import Tensor

from tests.bench import played
from tests.bench.loads import trace
from tests.bench.options import Options
from tests.bench.played import STEPS, Played
from tests.bench.replay import REPLAYS
from trimtab_server.domain.topology import Topology
from trimtab_server.engine.balancer import Balancer, View
from trimtab_server.engine.config import Limits
from trimtab_server.engine.planner import Planner
from trimtab_server.engine.queue import SolverQueue
from trimtab_server.metrics.recorder import Recorder
from trimtab_server.policy.policy import Policy
from trimtab_server.solver.backends.select import backend_for

STEP_SECONDS = 0.03

POLICIES = {
    played.DEFAULT: Policy(),
    "at most 2 moves a layer": Policy(max_moves_per_layer=2),
    "least gain 2 %": Policy(min_gain=0.02),
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
    queue = SolverQueue(4, Recorder())
    backend = backend_for("cpu", torch.device("cpu"))
    planner = Planner(queue, backend, torch.device("cpu"), Limits(), "fast", Recorder())
    loop = Balancer(planner, topology, 0, policy)
    served, results = played.untouched(load_TLE, topology), []
    # A server has looked before the first report: so it knows how long steps take.
    await loop.decide(View(0.0, -1, 0.0, None, lambda: load_TLE[0].numpy(), served))
    for window, (estimate_LE, next_LE) in enumerate(played.estimates(load_TLE, policy.smoothing)):
        before, steps = served, STEPS * (window + 1)
        at = steps * STEP_SECONDS
        view = View(at, steps - 1, steps, None, partial(estimate_LE.numpy), served)
        decision, target, _ = await loop.decide(view)
        if decision.moves and target is not None:
            served = target
            loop.switched()
        results.append(played.live(served.tensor(), before.tensor(), next_LE, topology))
    await queue.close()
    return Played(*map(list, zip(*results, strict=True)))
