"""Results of a trace, window by window: untouched, or with full re-plans for comparison."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tests.bench.replay import Outcome
from tests.bench.tables import print_table
from trimtab_protocol.placement import Placement
from trimtab_server.domain.placement import placement_of
from trimtab_server.domain.topology import Topology
from trimtab_server.loads.estimates import Smoothing
from trimtab_server.solver import evaluate, place, settings_for

STEPS = 16
"""Steps of a window; see examples/traces/README.md."""

UNTOUCHED = "untouched"
FULL = "full, aligned, every 1"
EVERY = {f"full, aligned, every {n}": n for n in (1, 4, 16)}
DEFAULT = "default policy"
KNOB = {f"least gain {least:g}": least for least in (0.0, 0.004, 0.008, 0.016, 0.032)}
"""Values of the setting that weighs balance against moves, besides its default."""

AS_MANY = "full, aligned, with the default policy's moves"

_RARE = range(6, 33)
_MORE_MOVES = 1.1

CAPTION = (
    f"A window is {STEPS} steps. A placement is measured on the window after the one in which it "
    "was decided, averaged over layers. Re-plans use effort balanced, on an estimate with a "
    "half-life of one window. The last row is the best of the re-plans "
    f"every {_RARE.start} to {_RARE.stop - 1} windows whose moves are at most a tenth more than "
    "the default policy's."
)


class Played(NamedTuple):
    """The result of a replay: for each window, the mean over layers.

    Attributes:
        balancedness: on the next window, [T - 1].
        moves: net moves a layer, [T - 1].
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


def untouched(load_TLE: Tensor, topology: Topology) -> Placement:
    """The placement that engines load before any balancing."""
    layers, experts = load_TLE.shape[1:]
    row_R = np.arange(topology.num_replicas) % experts
    return placement_of(np.tile(row_R, (layers, 1)), experts, topology.num_gpus)


def replans(load_TLE: Tensor, topology: Topology) -> dict[str, Played]:
    """Results without balancing, and with re-plans every 1, 4 and 16 windows."""
    never = replanned(load_TLE, topology, len(load_TLE))
    each = {label: replanned(load_TLE, topology, every) for label, every in EVERY.items()}
    return {UNTOUCHED: never, **each}


def with_as_many_moves(load_TLE: Tensor, topology: Topology, spent: float) -> Played:
    """The best of the rare re-plans whose moves are at most a little above `spent`."""
    rare = [replanned(load_TLE, topology, every) for every in _RARE]
    affordable = [each for each in rare if each.outcome.moves <= _MORE_MOVES * spent]
    return max(affordable or rare[-1:], key=lambda each: each.outcome.balancedness)


def replanned(load_TLE: Tensor, topology: Topology, every: int) -> Played:
    """Full, aligned re-plans: after each window whose number, from 1, `every` divides."""
    settings, served = settings_for("balanced"), untouched(load_TLE, topology).tensor()
    results = []
    for window, (estimate_LE, next_LE) in enumerate(estimates(load_TLE)):
        before = served
        if window % every == every - 1:
            plan = place(estimate_LE, topology, current=before, settings=settings)
            served = plan.phy2log
        results.append(live(served, before, next_LE, topology))
    return Played(*map(list, zip(*results, strict=True)))


def estimates(
    load_TLE: Tensor,
    smoothing: Smoothing = Smoothing(STEPS),  # noqa: B008 - it cannot change
) -> Iterator[tuple[Tensor, Tensor]]:
    """The estimate after each window, and the window on which it is measured."""
    estimate = smoothing.estimate(*load_TLE.shape[1:])
    for now_LE, next_LE in pairwise(load_TLE):
        estimate.add(now_LE.numpy().astype(np.float64), STEPS)
        yield torch.from_numpy(estimate.rate()), next_LE


def live(
    served: Tensor, before: Tensor, next_LE: Tensor, topology: Topology
) -> tuple[float, float]:
    """Balancedness of a placement on a window, and moves a layer from the placement before."""
    seen = evaluate(served, next_LE, topology.num_gpus, current=before)
    return float(seen.balancedness.mean()), float(seen.moves.double().mean())


def print_played(
    title: str, topology: Topology, played: Mapping[str, Played], caption: str = CAPTION
) -> None:
    """Print a row for each result, compared with a full re-plan in every window."""
    full = played[FULL].outcome
    rows = [[label, *_cells(each, full)] for label, each in played.items()]
    columns = ["plan", "live balancedness", "moves a layer and window", "switches"]
    columns += ["of full", "moves of full"]
    print_table(f"{title}, {shape_of(topology)}", columns, rows, caption)


def shape_of(topology: Topology) -> str:
    """Slots and GPUs."""
    return f"{topology.num_replicas} / {topology.num_gpus}"


def _cells(played: Played, full: Outcome) -> list[object]:
    balancedness, moves = played.outcome
    return [
        f"{balancedness:.4f}",
        f"{moves:.2f}",
        played.switches,
        f"{balancedness / full.balancedness:.1%}",
        f"{moves / full.moves:.1%}",
    ]
