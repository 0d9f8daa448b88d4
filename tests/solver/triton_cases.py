"""Requests with which the cuda backend is compared with the reference: few, small and odd."""

from __future__ import annotations

import torch
from torch import Tensor

from trimtab_server.domain.topology import Topology
from trimtab_server.solver.settings import Settings

Pack = tuple[Tensor, int, Tensor | None, Settings]
Plan = tuple[Tensor, Topology, Settings]


def random_rows(kind: str, rows: int, items: int, seed: int) -> Tensor:
    """Weights of one kind, float64 [rows, items]."""
    generator = torch.Generator().manual_seed(seed)
    if kind == "ties":
        return torch.randint(0, 6, (rows, items), generator=generator).double()
    if kind == "counts":
        return torch.randint(0, 10**12, (rows, items), generator=generator).double()
    fraction = torch.rand(rows, items, generator=generator, dtype=torch.float64)
    return fraction**8 if kind == "skewed" else fraction


def plan_of(layers: int, experts: int, replicas: int, gpus: int, seed: int) -> Plan:
    """A seeded request for a plan that is refined to convergence."""
    load_LE = random_rows("counts", layers, experts, seed)
    return load_LE, Topology(replicas, gpus), Settings(3, None, 2, seed=seed)


def _row(*weights: float) -> Tensor:
    return torch.tensor([weights], dtype=torch.float64)


def _groups(*numbers: int) -> Tensor:
    return torch.tensor([numbers])


_COUNTS = random_rows("counts", 2, 12, 5)
_TIES = random_rows("ties", 2, 12, 6)
_PAIRED = torch.arange(12).repeat(2, 1) // 2
_FULL = Settings(4, None, 2)

# With these weights LPT leaves groups doubled in most rows, which a test checks.
DEAD_ENDS: Pack = (
    random_rows("skewed", 4, 12, 21),
    3,
    torch.randint(0, 5, (4, 12), generator=torch.Generator().manual_seed(22)),
    Settings(2, None, 2),
)

PACKS: dict[str, Pack] = {
    "one pack": (_COUNTS, 1, None, _FULL),
    "one item per pack": (_COUNTS, 12, None, _FULL),
    "one item": (_row(7), 1, None, _FULL),
    "no weight": (torch.zeros(2, 12, dtype=torch.float64), 4, None, _FULL),
    "no weight in one row": (torch.stack([_COUNTS[0], 0 * _COUNTS[0]]), 4, None, _FULL),
    "all alike": (torch.ones(1, 12, dtype=torch.float64), 4, None, _FULL),
    "more K than packs": (_COUNTS, 4, None, Settings(99, None, 1)),
    "a pack on both sides": (_TIES, 4, None, Settings(3, None, 1)),
    "K of an odd size": (random_rows("counts", 1, 14, 1), 7, None, Settings(5, None, 1)),
    "no steps": (_COUNTS, 4, None, Settings(4, 0, 2)),
    "one step": (_COUNTS, 4, None, Settings(4, 1, 2)),
    "within tolerance": (_COUNTS, 4, None, Settings(4, None, 2, tolerance=0.05)),
    "tolerance of all": (_COUNTS, 4, None, Settings(4, None, 2, tolerance=1e300)),
    "range": (_COUNTS, 4, None, Settings(4, None, 2, "range")),
    "restarts, seeded": (_TIES, 3, None, Settings(2, None, 4, seed=2**63 + 11)),
    "more than 32 packs": (random_rows("ties", 1, 66, 2), 33, None, Settings(3, 4, 1)),
    "more than 16 slots": (random_rows("ties", 1, 38, 3), 2, None, Settings(2, 3, 1)),
    "huge and tiny": (_row(1e300, 3e-310, 5e-324, 1e299, 2.5, 0), 2, None, _FULL),
    "subnormal": (_row(5e-324, 1e-320, 3e-310, 2e-308, 0, 4e-322), 3, None, _FULL),
    "minus zero": (_row(-0.0, 1, -0.0, 3), 2, None, _FULL),
    "product rounds up": (_row((2**54 - 1) / 3, 5, 1), 3, None, _FULL),
    "groups": (_TIES, 4, _PAIRED, _FULL),
    "groups that no rule concerns": (_COUNTS, 4, torch.arange(12).repeat(2, 1), _FULL),
    "a group larger than the packs": (_COUNTS, 3, _PAIRED // 2, _FULL),
    "one group": (_COUNTS, 3, 0 * _PAIRED, _FULL),
    "swaps within a group": (
        _row(9, 1, 5, 5, 8, 2, 6, 1),
        2,
        _groups(0, 0, 1, 1, 0, 0, 2, 3),
        _FULL,
    ),
    "dead end": (_row(5, 3, 2, 1), 2, _groups(0, 1, 2, 0), Settings(1, 0, 1)),
    "dead end, refined": (_row(5, 3, 2, 1), 2, _groups(0, 1, 2, 0), _FULL),
    "dead ends": DEAD_ENDS,
    "dead ends and a group too large": (*DEAD_ENDS[:2], DEAD_ENDS[2].clamp(max=3), _FULL),
}

PLANS: dict[str, Plan] = {
    "global": plan_of(2, 6, 8, 4, 0),
    "no replicas": plan_of(1, 8, 8, 4, 1),
    "one expert": (_row(3), Topology(4, 2), _FULL),
    "no load": (torch.zeros(1, 5, dtype=torch.float64), Topology(8, 4), _FULL),
    "ties": (random_rows("ties", 2, 9, 4), Topology(15, 5), Settings(5, None, 2)),
    "hot expert, capped": (_row(1e9, 1, 2, 3, 4), Topology(12, 4), _FULL),
    "hot expert, more replicas than GPUs": (_row(1e9, 1), Topology(12, 3), _FULL),
    "hot expert on every GPU": (_row(90, 3, 5, 4, 2, 6, 1), Topology(12, 4), _FULL),
    "two nodes": (random_rows("counts", 2, 8, 8), Topology(12, 4, 2, 4), Settings(2, None, 2)),
    "a group on each node": (random_rows("ties", 1, 9, 9), Topology(12, 6, 3, 3), _FULL),
    "groups, one node": (random_rows("counts", 1, 8, 8), Topology(12, 4, 1, 4), _FULL),
    "too many pairings": (
        random_rows("counts", 1, 16, 10),
        Topology(16, 4, 4, 16),
        Settings(4, None, 2),
    ),
}
