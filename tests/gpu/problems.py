"""The problems that are timed: sizes of models, and settings."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tests.bench.loads import realistic
from tests.gpu.surroundings import REHEARSAL
from trimtab_server.domain.topology import Topology
from trimtab_server.solver.settings import Settings


@dataclass(frozen=True)
class Problem:
    """One kind of plan.

    Attributes:
        name: in tables; contains the goal, if there is one.
        layers: L.
        experts: E.
        topology: R, G, and for hierarchical placement nodes and groups.
        how: settings of the packing.
    """

    name: str
    layers: int
    experts: int
    topology: Topology
    how: Settings

    def load(self) -> Tensor:
        """float64 [L, E] on the host."""
        return torch.from_numpy(realistic(self.layers, self.experts))


def _hard(restarts: int) -> Settings:
    return Settings(16, None, restarts)


_REAL = (
    Problem("288 / 32, 32 restarts (goal 300 us)", 58, 256, Topology(288, 32), _hard(32)),
    Problem("288 / 72, 32 restarts (goal 600 us)", 58, 256, Topology(288, 72), _hard(32)),
    Problem(
        "1,000 layers, 288 / 32, 4 restarts (goal 2 ms)", 1000, 256, Topology(288, 32), _hard(4)
    ),
    Problem("288 / 32, balanced", 58, 256, Topology(288, 32), _hard(4)),
    Problem("288 / 32, fast", 58, 256, Topology(288, 32), Settings(4, 20, 1)),
    Problem("288 / 32, 4 nodes, 8 groups, balanced", 58, 256, Topology(288, 32, 4, 8), _hard(4)),
    Problem("512 / 256, 4 restarts", 58, 256, Topology(512, 256), _hard(4)),
    Problem("1,024 / 512, 4 restarts", 58, 256, Topology(1024, 512), _hard(4)),
)
"""58 layers of 256 experts, refined to convergence with top 16, unless a name says otherwise."""

_TINY = (
    Problem("12 / 4", 1, 8, Topology(12, 4), Settings(2, 2, 1)),
    Problem("12 / 4, 2 nodes, 4 groups", 1, 8, Topology(12, 4, 2, 4), Settings(2, 2, 1)),
)

PROBLEMS = _TINY if REHEARSAL else _REAL
