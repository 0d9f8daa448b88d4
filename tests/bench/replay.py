"""Replays of real traffic: planned on the past, measured on the next window."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tests.bench.loads import realistic, trace
from tests.bench.options import Options
from tests.bench.tables import print_table
from trimtab_server.domain.topology import Topology
from trimtab_server.solver import Budget, evaluate, improve, place, settings_for

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


def run(options: Options) -> None:
    """Compare improve with full, aligned re-plans at the same intervals."""
    del options
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


def constants(options: Options) -> None:
    """Print the results from which the defaults of improve were chosen: min_gain and top_k."""
    del options
    columns = ["min_gain", *REPLAYS]
    rows = []
    for min_gain in (0.0, 3e-4, 1e-3, 3e-3, 1e-2):
        row = [f"{min_gain:g}"]
        for name, topology in REPLAYS.items():
            replan = _improve(topology, 4, min_gain)
            outcome = replay(torch.from_numpy(trace(name)), topology, replan, 1)
            row.append(f"{outcome.balancedness:.4f} ({outcome.moves:.2f})")
        rows.append(row)
    title = "improve by <= 4 moves a layer, every window: live balancedness (moves)"
    print_table(title, columns, rows)
    rows = []
    shapes = {"288 / 32": (288, 32), "288 / 72": (288, 72)}
    before, after = torch.from_numpy(realistic()), torch.from_numpy(realistic(seed=1))
    for top_k in (2, 4, 8, 16, 32):
        row = [str(top_k)]
        for slots, gpus in shapes.values():
            start = place(before, Topology(slots, gpus)).phy2log
            load = 0.7 * before + 0.3 * after
            new, _ = improve(start, load, gpus, max_moves_per_layer=4, top_k=top_k)
            row.append(f"{evaluate(new, load, gpus).balancedness.mean():.4f}")
        rows.append(row)
    title = "improve by <= 4 moves a layer, 30 % of a realistic load replaced: balancedness"
    print_table(title, ["top_k", *shapes], rows)


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


def _improve(topology: Topology, moves: int, min_gain: float = Budget().min_gain) -> Replan:
    budget = Budget(max_moves_per_layer=moves, min_gain=min_gain)
    return lambda estimate_LE, in_force_LR: (
        place(estimate_LE, topology, current=in_force_LR, budget=budget).phy2log
    )


def _cells(outcome: Outcome, full: Outcome) -> list[str]:
    return [
        f"{outcome.balancedness:.4f}",
        f"{outcome.moves:.2f}",
        f"{outcome.balancedness / full.balancedness:.1%}",
        f"{outcome.moves / full.moves:.1%}",
    ]
