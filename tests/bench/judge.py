"""Checks and measures a placement with the solver's own checks and definition of balance."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tests.bench.problems import Problem
from trimtab_server.domain.arrays import check_phy2log
from trimtab_server.solver import evaluate


class Quality(NamedTuple):
    """The quality of a placement.

    Attributes:
        balancedness: mean over layers.
        worst: lowest balancedness of any layer.
        gap: mean over layers of 1 - bound / imbalance; if the problem has groups, the bound
            is for placements that keep groups on their nodes.
        keeps_groups: whether the placement keeps groups on their nodes.
    """

    balancedness: float
    worst: float
    gap: float
    keeps_groups: bool

    def cells(self) -> list[str]:
        """Mean, worst, gap; without a gap if the bound is not for this kind of placement."""
        gap = f"{self.gap:.3%}" if self.keeps_groups else "-"
        return [f"{self.balancedness:.4f}", f"{self.worst:.4f}", gap]


def judge(phy2log_LR: Tensor, problem: Problem) -> Quality:
    """Check a placement, and measure it.

    Raises:
        InvalidArgumentError: the shape or dtype is wrong, an index is out of range, or an
            expert has no slot.
    """
    load_LE, topology = torch.from_numpy(problem.load), problem.topology
    slots = topology.num_replicas
    checked_LR = check_phy2log(phy2log_LR, "phy2log", load_LE.shape[1], slots)
    after = evaluate(
        checked_LR,
        load_LE,
        topology.num_gpus,
        num_nodes=topology.num_nodes,
        num_groups=topology.num_groups,
        backend="reference",
    )
    share_L = after.balancedness
    return Quality(
        float(share_L.mean()),
        float(share_L.min()),
        float((1 - after.bound * share_L).mean()),
        _keeps_groups(checked_LR, problem),
    )


def _keeps_groups(phy2log_LR: Tensor, problem: Problem) -> bool:
    """Whether all experts of a group lie on one node."""
    nodes, groups = problem.topology.num_parts, problem.topology.num_groups
    if nodes == 1:
        return True
    group_LNr = (phy2log_LR // (problem.load.shape[1] // groups)).unflatten(1, (nodes, -1))
    held_LNB = torch.zeros(*group_LNr.shape[:2], groups, dtype=torch.bool)
    held_LNB.scatter_(2, group_LNr, True)
    return bool((held_LNB.sum(1) == 1).all())
