"""The kernels that each kind of request launches, from its input buffers to its answers."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from trimtab_server.solver.backends.backend import replica_cap
from trimtab_server.solver.backends.cuda.buffers import held_bytes
from trimtab_server.solver.backends.cuda.choose import choose_experts, choose_packs
from trimtab_server.solver.backends.cuda.hierarchy import GroupsToNodes
from trimtab_server.solver.backends.cuda.replicate import replicate
from trimtab_server.solver.backends.cuda.shapes import Packs, Plan, power_of_two
from trimtab_server.solver.backends.cuda.starts import Starts
from trimtab_server.solver.backends.cuda.warps import Warps
from trimtab_server.solver.settings import Settings


class Job(Protocol):
    """One kind of request, with buffers of its own. Only one thread may use it at a time.

    Attributes:
        inputs: the caller fills these before a launch.
        outputs: hold the answers after a launch.
        counters: int64 [2], steps and swaps after a launch.
        starts: its packings; the caller sets their seeds.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    counters: Tensor
    starts: tuple[Starts, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of its buffers."""

    def launch(self) -> None:
        """Queue all its kernels on the current stream."""


class PackJob:
    """`Backend.pack`: from weights [X, n] and groups [X, n] to packs and ranks [X, n]."""

    def __init__(
        self, packs: Packs, settings: Settings, device: torch.device, warps: Warps
    ) -> None:
        shape = packs.rows, packs.items
        self.counters = torch.zeros(2, dtype=torch.int64, device=device)
        self._starts = Starts(packs, settings.tolerance, self.counters, device, warps)
        self._weight_XI, self._code_XI = (
            torch.empty(shape, dtype=torch.int32, device=device) for _ in range(2)
        )
        amount_XI = torch.zeros(shape, dtype=torch.float64, device=device)
        group_XI = torch.zeros(shape, dtype=torch.int64, device=device)
        self.inputs: tuple[Tensor, ...] = (amount_XI,)
        if packs.groups:
            self.inputs += (group_XI,)
        self.outputs = tuple(torch.empty(shape, dtype=torch.int64, device=device) for _ in range(2))
        self.starts: tuple[Starts, ...] = (self._starts,)

    @property
    def nbytes(self) -> int:
        """See `Job`."""
        return held_bytes(self, *self.starts)

    def launch(self) -> None:
        """See `Job`."""
        self.counters.zero_()
        starts = self._starts
        starts.launch_prepare(self.inputs[0], self.inputs[-1], self._weight_XI, self._code_XI)
        starts.launch(self._weight_XI, self._code_XI)
        choose_packs[starts.packs.rows,](*starts.results, *self.outputs, **starts.choice)


class PlanJob:
    """`Backend.plan`: from loads [L, E] to phy2log [L, R].

    In a hierarchical plan groups are assigned to nodes first, and each node of a layer is a
    row of its own.
    """

    def __init__(self, plan: Plan, settings: Settings, device: torch.device, warps: Warps) -> None:
        packs = plan.packs
        self._plan = plan
        self.counters = torch.zeros(2, dtype=torch.int64, device=device)
        self._starts = Starts(packs, settings.tolerance, self.counters, device, warps)
        self._expert_XR, self._weight_XR, self._code_XR = (
            torch.empty(packs.rows, packs.items, dtype=torch.int32, device=device) for _ in range(3)
        )
        shape = plan.layers, plan.topology.num_parts * plan.experts
        self.inputs: tuple[Tensor, ...] = (torch.zeros(shape, dtype=torch.float64, device=device),)
        replicas = plan.topology.num_replicas
        self.outputs: tuple[Tensor, ...] = (
            torch.empty(plan.layers, replicas, dtype=torch.int64, device=device),
        )
        self.starts: tuple[Starts, ...] = (self._starts,)
        self._nodes = None
        self._group_LB = self._expert_XR
        if plan.topology.num_parts > 1:
            self._nodes = GroupsToNodes(
                plan, settings, self.inputs[0], self.counters, device, warps
            )
            self._group_LB = self._nodes.group_LB
            self.starts += self._nodes.starts

    @property
    def nbytes(self) -> int:
        """See `Job`."""
        return held_bytes(self, *self.starts, *([self._nodes] if self._nodes else []))

    def launch(self) -> None:
        """See `Job`."""
        self.counters.zero_()
        if self._nodes is not None:
            self._nodes.launch()
        self.launch_replicate()
        self._starts.launch(self._weight_XR, self._code_XR)
        self.launch_choose()

    def launch_replicate(self) -> None:
        """Queue `replicate`."""
        plan, packs = self._plan, self._plan.packs
        replicate[packs.rows,](
            self.inputs[0],
            self._group_LB,
            self._expert_XR,
            self._weight_XR,
            self._code_XR,
            plan.topology.num_parts,
            plan.experts,
            packs.items,
            replica_cap(packs.items, plan.experts, packs.packs),
            plan.group_size,
            E2=power_of_two(plan.experts, 2),
            R2=packs.items2,
            HIERARCHICAL=self._nodes is not None,
            num_warps=self._starts.warps.row,
            num_stages=1,
        )

    def launch_choose(self) -> None:
        """Queue `choose_experts`."""
        plan = self._plan
        choose_experts[plan.packs.rows,](
            *self._starts.results,
            self._expert_XR,
            self._group_LB,
            self.outputs[0],
            plan.experts,
            plan.group_size,
            HIERARCHICAL=self._nodes is not None,
            **self._starts.choice,
        )
