"""Proposes, for each layer, to keep its placement, to improve it, or to plan it anew."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trimtab_protocol.placement import Placement
from trimtab_server.domain.balance import imbalance
from trimtab_server.domain.moves import Moves
from trimtab_server.domain.placement import of_layers, with_layers
from trimtab_server.domain.topology import Topology
from trimtab_server.engine.gpu_loads import GpuLoads
from trimtab_server.engine.plan_request import Options, Terms
from trimtab_server.engine.plan_result import Placed
from trimtab_server.engine.planner import Planner
from trimtab_server.loads.estimates import Loads
from trimtab_server.policy.decide import shifted_layers
from trimtab_server.policy.floor import Floor
from trimtab_server.policy.policy import Policy
from trimtab_server.policy.trust import squared_falls
from trimtab_server.solver.budget import Budget
from trimtab_server.solver.improve import DEFAULT_TOP_K

_QUICK_TOP_K = 1
"""Top K of `improve` for many steps: as good as more, and three times as fast."""

Layers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Proposal:
    """New placements of some layers.

    Attributes:
        layer_A: the layers, ascending.
        placed: their new placements, [A, ...].
        shifted_A: which of them would stay far from the best with a few moves only, bool.
        planned_A: which of those have a new plan, bool.
    """

    layer_A: Layers
    placed: Placed
    shifted_A: npt.NDArray[np.bool_]
    planned_A: npt.NDArray[np.bool_]

    @property
    def moves_of_layers(self) -> npt.NDArray[np.int64]:
        """Net moves of each of the layers."""
        return np.asarray(self.placed.after.moves.numpy())

    def select(self, row_B: Layers) -> Proposal:
        """The proposal for some of its layers, given by their rows."""
        if len(row_B) == len(self.layer_A):
            return self
        placed = self.placed.of_layers(row_B)
        return Proposal(self.layer_A[row_B], placed, self.shifted_A[row_B], self.planned_A[row_B])

    def applied_to(self, served: Placement) -> Placement:
        """The placement of all layers, with those of the proposal replaced."""
        rows = np.arange(len(self.layer_A))
        return with_layers(served, self.layer_A, self.placed.placement, rows)

    def moves(self) -> Moves:
        """The moves from the placement in force."""
        rows = np.arange(len(self.layer_A))
        if self.placed.moves is None:
            raise LookupError("the plan had no current placement")
        return Moves.none().with_layers(self.layer_A, self.placed.moves, rows)


class Proposer:
    """Makes proposals for one deployment."""

    def __init__(self, planner: Planner, topology: Topology) -> None:
        self._planner = planner
        self._topology = topology

    async def propose(
        self, load_LE: Loads, served: Placement, floor: Floor, policy: Policy, layer_A: Layers
    ) -> Proposal:
        """Plan the moves of some layers that gain more than noise alone could seem to.

        A layer gets a few moves. If it would stay far from the best, it gets all moves that gain;
        and if a new plan would still be far better, it gets that.

        Args:
            load_LE: of all layers, [L, E]. So are the next two arguments.
            served: the placement in force.
            floor: the gains that noise alone could seem to have.
            policy: of the deployment.
            layer_A: the layers to plan, ascending, at least one.
        """
        load_AE, served_A, floor_A = load_LE[layer_A], of_layers(served, layer_A), floor.of(layer_A)
        few = Budget(
            policy.max_moves_per_layer, policy.max_moves or None, _min_gains(floor_A, policy)
        )
        placed = await self._plan(load_AE, served_A, few)
        shifted_A, planned_A = np.zeros((2, len(layer_A)), np.bool_)
        (far_B,) = self._far(placed, floor_A, policy).nonzero()
        if len(far_B):
            floor_B, served_B = floor_A.of(far_B), of_layers(served_A, far_B)
            better, planned_B = await self._reached(load_AE[far_B], served_B, floor_B, policy)
            few_B, best_B = placed.after.imbalance[far_B].numpy(), better.after.imbalance.numpy()
            # The bound may be out of reach, so compare with what was reached.
            shifted_A[far_B] = shifted_layers(few_B, best_B, floor_B, policy)
            planned_A[far_B] = planned_B
            placed = placed.with_layers(far_B, better, np.arange(len(far_B)))
        return Proposal(layer_A, placed, shifted_A, planned_A)

    async def _reached(
        self, load_BE: Loads, served_B: Placement, floor_B: Floor, policy: Policy
    ) -> tuple[Placed, npt.NDArray[np.bool_]]:
        """All moves that gain, and new plans for layers that would still be far from one.

        Returns:
            The result, and which layers have a new plan, bool.
        """
        every = Budget(None, policy.max_moves or None, _min_gains(floor_B, policy))
        placed = await self._plan(load_BE, served_B, every, _QUICK_TOP_K)
        planned_B = np.zeros(len(load_BE), np.bool_)
        (far_C,) = self._far(placed, floor_B, policy).nonzero()
        if len(far_C):
            anew = await self._plan(load_BE[far_C], of_layers(served_B, far_C), None)
            reached_C, best_C = placed.after.imbalance[far_C].numpy(), anew.after.imbalance.numpy()
            (row_D,) = shifted_layers(reached_C, best_C, floor_B.of(far_C), policy).nonzero()
            if len(row_D):
                placed = placed.with_layers(far_C[row_D], anew, row_D)
                planned_B[far_C[row_D]] = True
        return placed, planned_B

    async def confirmed_rows(
        self,
        proposal: Proposal,
        halves_HLE: Loads,
        served: Placement,
        floor: Floor,
        policy: Policy,
        gpu_loads: GpuLoads,
    ) -> Layers:
        """Rows of a proposal that independent halves of the load confirm.

        Each half plans, and the other half judges the plan: a gain found this way is no accident
        of the counts. Layers without a mean gain are dropped, unless they are so far from the best
        that there is no doubt.
        """
        kept_A = proposal.shifted_A.copy()
        (row_B,) = ((proposal.moves_of_layers > 0) & ~kept_A).nonzero()
        if len(row_B):
            # Both halves are planned in one call, as twice as many layers.
            layer_2B = np.tile(proposal.layer_A[row_B], 2)
            plan_2BE, judge_2BE = (
                np.concatenate([half_LE[proposal.layer_A[row_B]] for half_LE in halves])
                for halves in (halves_HLE, halves_HLE[::-1])
            )
            served_2B = of_layers(served, layer_2B)
            few = Budget(policy.max_moves_per_layer, None, _min_gains(floor.of(layer_2B), policy))
            other = await self._plan(plan_2BE, served_2B, few, _QUICK_TOP_K)
            before_2B, after_2B = (
                imbalance(gpu_loads(placement, judge_2BE, layer_2B)).numpy()
                for placement in (served_2B, other.placement)
            )
            gain_B = (1.0 - after_2B / before_2B).reshape(2, -1).sum(0)
            kept_A[row_B[gain_B > 0]] = True
        return np.asarray(kept_A.nonzero()[0])

    async def _plan(
        self,
        load: Loads,
        served: Placement,
        budget: Budget | None,
        top_k: int = DEFAULT_TOP_K,
    ) -> Placed:
        # A new plan is rare and makes many moves, so it is worth the better effort.
        options = Options() if budget else Options("balanced")
        terms = Terms(self._topology, budget, options, top_k)
        return await self._planner.place(load, terms, served)

    def _far(self, placed: Placed, floor: Floor, policy: Policy) -> npt.NDArray[np.bool_]:
        after = placed.after
        return shifted_layers(after.imbalance.numpy(), after.bound.numpy(), floor, policy)


def gaining_rows(
    proposal: Proposal,
    load_LE: Loads,
    served: Placement,
    floor: Floor,
    policy: Policy,
    gpu_loads: GpuLoads,
) -> Layers:
    """Rows of a proposal whose moves gain enough if load is split as the engine splits it."""
    layer_A, load_AE = proposal.layer_A, load_LE[proposal.layer_A]
    placements = of_layers(served, layer_A), proposal.placed.placement
    loads = (gpu_loads(each, load_AE, layer_A).numpy() for each in placements)
    least_A = np.array(_min_gains(floor.of(layer_A), policy)) * proposal.moves_of_layers
    return np.asarray((squared_falls(*loads) >= least_A).nonzero()[0])


def _min_gains(floor: Floor, policy: Policy) -> tuple[float, ...]:
    """The smallest gain of a move, by layer."""
    return tuple(np.maximum(floor.gain_L, policy.least_gain).tolist())
