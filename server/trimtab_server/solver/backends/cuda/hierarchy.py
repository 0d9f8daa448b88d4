"""Launches the first half of a hierarchical plan: groups onto nodes."""

from __future__ import annotations

import torch
from torch import Tensor

from trimtab_server.solver.backends.cuda.choose import choose_members
from trimtab_server.solver.backends.cuda.nodes import group_loads, pair
from trimtab_server.solver.backends.cuda.shapes import Plan, power_of_two
from trimtab_server.solver.backends.cuda.starts import Starts
from trimtab_server.solver.backends.cuda.warps import Warps
from trimtab_server.solver.pairing import pairings
from trimtab_server.solver.settings import Settings


class GroupsToNodes:
    """Tries all pairings of groups with nodes, or packs the groups if there are too many.

    Attributes:
        group_LB: int32 [L, groups], written: the groups of the first node, then of the next.
        starts: of the packing; empty if all pairings are tried.
    """

    def __init__(
        self,
        plan: Plan,
        settings: Settings,
        load_LE: Tensor,
        counters: Tensor,
        device: torch.device,
        warps: Warps,
    ) -> None:
        self._plan, self._load_LE, self._warps = plan, load_LE, warps
        shape = plan.layers, plan.topology.num_groups
        self._total_LB = torch.empty(shape, dtype=torch.float64, device=device)
        self.group_LB, self._weight_LB = (
            torch.empty(shape, dtype=torch.int32, device=device) for _ in range(2)
        )
        pairing_QB = pairings(plan.topology.num_groups, plan.topology.num_nodes)
        self._pairing_QB = None
        self.starts: tuple[Starts, ...] = ()
        if pairing_QB is None:
            starts = Starts(plan.node_packs, settings.tolerance, counters, device, warps)
            self.starts = (starts,)
        else:
            self._pairing_QB = pairing_QB.to(device, torch.int32)

    def launch(self) -> None:
        """Queue the kernels."""
        plan, groups = self._plan, self._plan.topology.num_groups
        group_loads[plan.layers,](
            self._load_LE,
            self._total_LB,
            groups,
            plan.group_size,
            B2=power_of_two(groups, 2),
            F2=power_of_two(plan.group_size, 2),
            num_warps=self._warps.row,
            num_stages=1,
        )
        if self._pairing_QB is None:
            self._launch_packing(self.starts[0])
            return
        pair[plan.layers,](
            self._total_LB,
            self._pairing_QB,
            self.group_LB,
            len(self._pairing_QB),
            groups,
            plan.topology.num_nodes,
            Q2=power_of_two(len(self._pairing_QB), 2),
            B2=power_of_two(groups, 2),
            num_warps=self._warps.row,
            num_stages=1,
        )

    def _launch_packing(self, starts: Starts) -> None:
        starts.launch_prepare(self._total_LB, self._weight_LB, self._weight_LB, self._weight_LB)
        starts.launch(self._weight_LB, self._weight_LB)
        choose_members[starts.packs.rows,](*starts.results, self.group_LB, **starts.choice)
