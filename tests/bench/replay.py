"""Replays of real traffic: planned on the past, judged on the next window."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tests.bench.loads import trace
from tests.bench.tables import print_table
from trimtab_server.domain.balance import evaluate
from trimtab_server.domain.topology import Topology
from trimtab_server.solver import Budget, place, settings_for

Replan = Callable[[Tensor, Tensor], Tensor]
"""(estimate [L, E], phy2log in force [L, R]) -> the next phy2log."""


class Outcome(NamedTuple):
    """Means over windows and layers."""

    balancedness: float
    moves: float


REPLAYS = {
    "gptoss20b_phases": Topology(40, 8),
    "gptoss20b_mixed": Topology(40, 8),
    "esft_dsv2lite": Topology(80, 8),
}
EVERY = 4
"""Windows between two plans."""


def run(repeats: int) -> None:
    """Print the incremental step against full, aligned re-plans at the same cadence."""
    del repeats
    for name, topology in REPLAYS.items():
        load_TLE = torch.from_numpy(trace(name))
        full = replay(load_TLE, topology, _full(topology), EVERY)
        rows = [
            ["untouched", *_cells(replay(load_TLE, topology, _stay, EVERY), full)],
            ["full, aligned", *_cells(full, full)],
        ]
        for moves in (1, 2, 4, 8):
            outcome = replay(load_TLE, topology, _improve(topology, moves), EVERY)
            rows.append([f"improve, <= {moves} moves a layer", *_cells(outcome, full)])
        outcome = replay(load_TLE, topology, _improve(topology, 4), 1)
        rows.append(["improve, <= 4, every window", *_cells(outcome, full)])
        print_table(
            f"{name}, {topology.num_replicas} / {topology.num_gpus}, every {EVERY} windows",
            ["plan", "live balancedness", "moves a layer and window", "of full", "moves of full"],
            rows,
        )


def replay(load_TLE: Tensor, topology: Topology, replan: Replan, every: int) -> Outcome:
    """Serve a trace with an exponential average of factor 0.5 as the estimate."""
    steps = list(_steps(load_TLE, topology, replan, every))
    return Outcome(*(float(np.mean(column)) for column in zip(*steps, strict=True)))


def _steps(
    load_TLE: Tensor, topology: Topology, replan: Replan, every: int
) -> Iterator[tuple[float, float]]:
    experts = load_TLE.shape[2]
    in_force = (torch.arange(topology.num_replicas) % experts).repeat(load_TLE.shape[1], 1)
    estimate_LE = load_TLE[0]
    for window, (now_LE, next_LE) in enumerate(pairwise(load_TLE)):
        estimate_LE = (estimate_LE + now_LE) / 2
        before = in_force
        if window % every == every - 1:
            in_force = replan(estimate_LE, in_force)
        live = evaluate(in_force, next_LE, topology.num_gpus, current=before)
        yield float(live.balancedness.mean()), float(live.moves.double().mean())


def _stay(estimate_LE: Tensor, in_force_LR: Tensor) -> Tensor:
    del estimate_LE
    return in_force_LR


def _full(topology: Topology) -> Replan:
    settings = settings_for("balanced")
    return lambda estimate_LE, in_force_LR: (
        place(estimate_LE, topology, current=in_force_LR, settings=settings).phy2log
    )


def _improve(topology: Topology, moves: int) -> Replan:
    budget, settings = Budget(max_moves_per_layer=moves), settings_for("fast")
    return lambda estimate_LE, in_force_LR: (
        place(estimate_LE, topology, current=in_force_LR, budget=budget, settings=settings).phy2log
    )


def _cells(outcome: Outcome, full: Outcome) -> list[str]:
    return [
        f"{outcome.balancedness:.4f}",
        f"{outcome.moves:.2f}",
        f"{outcome.balancedness / full.balancedness:.1%}",
        f"{outcome.moves / full.moves:.1%}",
    ]
