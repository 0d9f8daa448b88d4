"""Replays of real traffic, balanced by the server's own loop, policy by policy."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tests.bench.loads import trace
from tests.bench.options import Options
from tests.bench.replay import REPLAYS, Outcome
from tests.bench.tables import print_table
from trimtab_server.domain.placement import Placement
from trimtab_server.domain.topology import Topology
from trimtab_server.engine.balancer import Balancer, View
from trimtab_server.engine.config import Limits
from trimtab_server.engine.planner import Planner
from trimtab_server.engine.queue import SolverQueue
from trimtab_server.loads.estimates import Smoothing
from trimtab_server.metrics.recorder import Recorder
from trimtab_server.policy.policy import Policy
from trimtab_server.solver import evaluate, place, settings_for
from trimtab_server.solver.backends.select import backend_for

STEPS = 16
"""Of a window: see examples/traces/README.md."""

STEP_SECONDS = 0.03

POLICIES = {
    "default policy": Policy(),
    "at most 2 moves a layer": Policy(max_moves_per_layer=2),
    "least gain 2 %": Policy(min_gain=0.02),
}


class Served(NamedTuple):
    """What a replay came to: by window, the mean over layers.

    Attributes:
        balancedness: of the next window, float64 [T - 1].
        moves: net, a layer, float64 [T - 1].
        switches: how many windows had any.
    """

    balancedness: list[float]
    moves: list[float]

    @property
    def outcome(self) -> Outcome:
        """Means over windows."""
        return Outcome(float(np.mean(self.balancedness)), float(np.mean(self.moves)))

    @property
    def switches(self) -> int:
        """Windows with moves."""
        return sum(moves > 0 for moves in self.moves)


def run(options: Options) -> None:
    """Print the loop's policies beside full, aligned re-plans."""
    names = list(REPLAYS)[2:] if options.quick else list(REPLAYS)
    for name in names:
        load_TLE = torch.from_numpy(trace(name))[: 20 if options.quick else None]
        _print_replay(name, load_TLE, REPLAYS[name])


def _print_replay(name: str, load_TLE: Tensor, topology: Topology) -> None:
    every = {f"full, aligned, every {n}": n for n in (1, 4, 16)}
    served = {
        "untouched": _replanned(load_TLE, topology, len(load_TLE)),
        **{label: _replanned(load_TLE, topology, n) for label, n in every.items()},
        **{label: asyncio.run(_looped(load_TLE, topology, p)) for label, p in POLICIES.items()},
    }
    # What a re-plan as rare as the default's moves would serve.
    spent = served["default policy"].outcome.moves
    seldom = min(
        (_replanned(load_TLE, topology, n) for n in range(8, 25)),
        key=lambda each: abs(each.outcome.moves - spent),
    )
    served["full, aligned, with the default policy's moves"] = seldom
    full = served["full, aligned, every 1"].outcome
    rows = [[label, *_cells(each, full)] for label, each in served.items()]
    columns = ["plan", "live balancedness", "moves a layer and window", "switches"]
    columns += ["of full", "moves of full"]
    caption = (
        f"A window is {STEPS} steps. Estimate, decision and plan are the server's; judged on the "
        "next window. Re-plans use an exponential average of factor 0.5 a window."
    )
    shape = f"{topology.num_replicas} / {topology.num_gpus}"
    print_table(f"{name}, {shape}", columns, rows, caption)


def _cells(served: Served, full: Outcome) -> list[object]:
    balancedness, moves = served.outcome
    return [
        f"{balancedness:.4f}",
        f"{moves:.2f}",
        served.switches,
        f"{balancedness / full.balancedness:.1%}",
        f"{moves / full.moves:.1%}",
    ]


def _untouched(load_TLE: Tensor, topology: Topology) -> Placement:
    layers, experts = load_TLE.shape[1:]
    row_R = np.arange(topology.num_replicas) % experts
    return Placement.of(np.tile(row_R, (layers, 1)), experts, topology.num_gpus)


def _replanned(load_TLE: Tensor, topology: Topology, every: int) -> Served:
    settings, served = settings_for("balanced"), _untouched(load_TLE, topology).tensor()
    results = []
    for window, (estimate_LE, next_LE) in enumerate(_estimates(load_TLE)):
        before = served
        if window % every == every - 1:
            plan = place(estimate_LE, topology, current=before, settings=settings)
            served = plan.phy2log
        results.append(_live(served, before, next_LE, topology))
    return Served(*map(list, zip(*results, strict=True)))


async def _looped(load_TLE: Tensor, topology: Topology, policy: Policy) -> Served:
    queue = SolverQueue(4, Recorder())
    backend = backend_for("cpu", torch.device("cpu"))
    planner = Planner(queue, backend, torch.device("cpu"), Limits(), "fast", Recorder())
    loop, served = Balancer(planner, topology, 0, policy), _untouched(load_TLE, topology)
    results = []
    for window, (estimate_LE, next_LE) in enumerate(_estimates(load_TLE, policy.smoothing)):
        before, step = served, STEPS * (window + 1)
        view = View(step * STEP_SECONDS, step, step, None, partial(estimate_LE.numpy), served)
        decision, target, _ = await loop.decide(view)
        if decision.moves and target is not None:
            served = target
            loop.switched()
        results.append(_live(served.tensor(), before.tensor(), next_LE, topology))
    await queue.close()
    return Served(*map(list, zip(*results, strict=True)))


def _estimates(
    load_TLE: Tensor,
    smoothing: Smoothing = Smoothing(STEPS),  # noqa: B008 - it cannot change
) -> Iterator[tuple[Tensor, Tensor]]:
    """The estimate after each window, and the window that it is judged on."""
    estimate = smoothing.estimate(*load_TLE.shape[1:])
    for now_LE, next_LE in pairwise(load_TLE):
        estimate.add(now_LE.numpy().astype(np.float64), STEPS)
        yield torch.from_numpy(estimate.rate()), next_LE


def _live(
    served: Tensor, before: Tensor, next_LE: Tensor, topology: Topology
) -> tuple[float, float]:
    live = evaluate(served, next_LE, topology.num_gpus, current=before)
    return float(live.balancedness.mean()), float(live.moves.double().mean())
