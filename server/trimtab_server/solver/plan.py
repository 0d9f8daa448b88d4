"""Load to placement: plan anew, plan anew and align, or improve by few moves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from trimtab_server.domain.balance import Evaluation
from trimtab_server.domain.moves import Moves
from trimtab_server.domain.topology import Topology
from trimtab_server.solver.settings import Settings
from trimtab_server.solver.stages import Stage, untimed


@dataclass(frozen=True)
class Budget:
    """How much weight traffic `improve` may cause; see there."""

    max_moves_per_layer: int | None = None
    max_moves: int | None = None
    min_gain: float = 1e-4
    cross_node_cost: float = 1.0


@dataclass(frozen=True)
class Plan:
    """A placement with what it took.

    Attributes:
        phy2log: int64 [L, R].
        moves: from the current placement; None without one.
        before: balance of the current placement; None without one.
        after: balance of the new placement.
        iterations: refinement steps, summed over rows and restarts.
        swaps: swaps applied, likewise.
    """

    phy2log: Tensor
    moves: Moves | None
    before: Evaluation | None
    after: Evaluation
    iterations: int
    swaps: int


def place(
    load: Any,
    topology: Topology,
    *,
    current: Any = None,
    budget: Budget | None = None,
    settings: Settings,
    stage: Stage = untimed,
) -> Plan:
    """Place the experts of all layers.

    Without `current` the placement is planned from scratch; with it, planned
    and then aligned so that few experts move; with `budget` too, `current` is
    improved by the best few moves.
    """
    raise NotImplementedError  # being written by the solver's author
