"""Replays for validation, on which no default was chosen: reordered traces, other topologies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tests.bench import played
from tests.bench.loads import Loads, trace
from tests.bench.options import Options
from tests.bench.played import shape_of
from tests.bench.policy import looped
from tests.bench.tables import print_table
from trimtab_server.domain.topology import Topology
from trimtab_server.policy.policy import Policy

MIN_OF_FULL = 0.982
MIN_ABOVE = 0.01


def max_moves(topology: Topology) -> float:
    """The allowed share of the moves that a full re-plan in every window takes."""
    return 1 / 17 if topology.num_gpus <= 8 else 1 / 15


CAPTION = (
    "The default policy, as the server's loop decides in this process, on windows of the traces "
    "in orders and topologies that were not used to choose any policy. `above`: "
    "points of live balancedness above the best of the full, aligned re-plans that spend as many "
    f"moves. Missed: less than {MIN_OF_FULL:.1%} of the full re-plan every window, more than a "
    "seventeenth of its moves (on 16 GPUs: a fifteenth), or less than "
    f"{100 * MIN_ABOVE:.0f} point above."
)
_PHASES, _MIXED, _TASKS = "gptoss20b_phases", "gptoss20b_mixed", "esft_dsv2lite"
_SMALL, _LARGE = Topology(40, 8), Topology(80, 8)


class Aside(NamedTuple):
    """A replay: its name, its windows [T, L, E], and the topology that serves them."""

    name: str
    windows: Callable[[], Loads]
    topology: Topology


def run(options: Options) -> None:
    """Print the results of the default policy on each replay."""
    chosen = ASIDE[3:4] if options.quick else ASIDE
    columns = ["replay", "shape", "untouched", "full every 1", "default policy", "of full"]
    columns += [
        "moves a layer and window",
        "moves of full",
        "with as many moves",
        "above",
        "missed",
    ]
    print_table("Replays set aside", columns, _rows(chosen), CAPTION)


def _rows(chosen: list[Aside]) -> Iterator[list[str]]:
    for name, windows, topology in chosen:
        load_TLE = torch.from_numpy(windows())
        yield [name, shape_of(topology), *_cells(load_TLE, topology)]


def _cells(load_TLE: Tensor, topology: Topology) -> list[str]:
    still = played.replanned(load_TLE, topology, len(load_TLE)).outcome
    full = played.replanned(load_TLE, topology, 1).outcome
    ours = looped(load_TLE, topology, Policy()).outcome
    rare = played.with_as_many_moves(load_TLE, topology, ours.moves).outcome
    of_full, of_moves = ours.balancedness / full.balancedness, ours.moves / full.moves
    above = ours.balancedness - rare.balancedness
    missed = [
        *(["balance"] if of_full < MIN_OF_FULL else []),
        *(["moves"] if of_moves > max_moves(topology) else []),
        *(["above"] if above < MIN_ABOVE else []),
    ]
    return [
        *(f"{each.balancedness:.4f}" for each in (still, full, ours)),
        f"{of_full:.1%}",
        f"{ours.moves:.2f}",
        f"{of_moves:.1%}",
        f"{rare.balancedness:.4f} ({rare.moves:.2f})",
        f"{100 * above:.1f}",
        ", ".join(missed) or "none",
    ]


def backwards(name: str) -> Loads:
    """The windows of a trace from the last to the first."""
    return trace(name)[::-1].copy()


def in_turns(name: str, parts: int, each: int) -> Loads:
    """A trace cut into equal parts that take turns, with `each` windows of a part at a time."""
    load_TLE = trace(name)
    length = len(load_TLE) // parts // each * each
    starts = [part * (len(load_TLE) // parts) for part in range(parts)]
    turns = range(0, length, each)
    return np.concatenate(
        [load_TLE[start + at : start + at + each] for at in turns for start in starts]
    )


def spliced(one: str, other: str, each: int) -> Loads:
    """Two traces that take turns, with `each` windows of one at a time."""
    load_TLE, other_TLE = trace(one), trace(other)
    pieces = [
        (load_TLE if at // each % 2 == 0 else other_TLE)[at : at + each]
        for at in range(0, min(len(load_TLE), len(other_TLE)), each)
    ]
    return np.concatenate(pieces)


def reordered(name: str, order: tuple[int, ...]) -> Loads:
    """A trace cut into as many equal parts as `order` has entries, in that order."""
    parts = np.split(trace(name), len(order))
    return np.concatenate([parts[part] for part in order])


ASIDE = [
    Aside("phases backwards", lambda: backwards(_PHASES), _SMALL),
    Aside("phases in turns of 16 windows", lambda: in_turns(_PHASES, 6, 16), _SMALL),
    Aside("phases and mixed, 32 windows each", lambda: spliced(_PHASES, _MIXED, 32), _SMALL),
    Aside("tasks in another order", lambda: reordered(_TASKS, (2, 0, 3, 1)), _LARGE),
    Aside("tasks in turns of 8 windows", lambda: in_turns(_TASKS, 4, 8), _LARGE),
    Aside("phases", lambda: trace(_PHASES), Topology(48, 8)),
    Aside("mixed", lambda: trace(_MIXED), Topology(64, 16)),
    Aside("tasks", lambda: trace(_TASKS), Topology(96, 16)),
]
