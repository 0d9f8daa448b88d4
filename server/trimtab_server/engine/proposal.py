"""What a placement could become, layer by layer: kept, improved, or planned anew."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from trimtab_server.domain.balance import imbalance, loads_with
from trimtab_server.domain.moves import Moves
from trimtab_server.domain.placement import Placement
from trimtab_server.domain.topology import Topology
from trimtab_server.engine.planner import Options, Placed, Planner, Terms
from trimtab_server.loads.estimates import Loads
from trimtab_server.policy.decide import shifted_layers
from trimtab_server.policy.floor import Floor
from trimtab_server.policy.policy import Policy
from trimtab_server.solver.budget import Budget
from trimtab_server.solver.improve import DEFAULT_TOP_K

_QUICK_TOP_K = 1
"""Of `improve`, where many steps are taken: as good, and three times as fast."""

Layers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Proposal:
    """What some layers could become.

    Attributes:
        layer_A: those, ascending.
        placed: what they would be, [A, ...].
        shifted_A: which of them a few moves would leave far off what can be reached, bool.
        planned_A: which of those have a new plan, bool.
    """

    layer_A: Layers
    placed: Placed
    shifted_A: npt.NDArray[np.bool_]
    planned_A: npt.NDArray[np.bool_]

    @property
    def moves_of_layers(self) -> npt.NDArray[np.int64]:
        """Net moves of each of its layers."""
        moves = self.placed.moves
        if moves is None:
            raise LookupError("planned from nothing in force")
        return np.asarray(moves.per_layer(len(self.layer_A)).numpy())

    def only(self, row_B: Layers) -> Proposal:
        """The same of some of its layers, given by their rows."""
        if len(row_B) == len(self.layer_A):
            return self
        placed = self.placed.of_layers(row_B)
        return Proposal(self.layer_A[row_B], placed, self.shifted_A[row_B], self.planned_A[row_B])

    def applied_to(self, served: Placement) -> Placement:
        """All layers, with these."""
        rows = np.arange(len(self.layer_A))
        return served.with_layers(self.layer_A, self.placed.placement, rows)

    def moves(self) -> Moves:
        """From what is in force."""
        rows = np.arange(len(self.layer_A))
        if self.placed.moves is None:
            raise LookupError("planned from nothing in force")
        return Moves.none().with_layers(self.layer_A, self.placed.moves, rows)


class Proposer:
    """Makes them.

    Args:
        planner: carries out the planning.
        topology: of the deployment.
    """

    def __init__(self, planner: Planner, topology: Topology) -> None:
        self._planner = planner
        self._topology = topology

    async def propose(
        self, load_LE: Loads, served: Placement, floor: Floor, policy: Policy, layer_A: Layers
    ) -> Proposal:
        """The moves of some layers that gain more than noise may seem to.

        Those that a few moves leave far off get all that gain, and those that these leave far
        from what a new plan reaches get that.

        Args:
            load_LE: of all layers, [L, E], as all that follows.
            served: the placement in force.
            floor: of what noise may seem to give.
            policy: the deployment's.
            layer_A: the layers to plan, ascending, at least one.
        """
        load_AE, served_A, floor_A = load_LE[layer_A], served.of_layers(layer_A), floor.of(layer_A)
        few = Budget(policy.max_moves_per_layer, policy.max_moves or None, _least(floor_A, policy))
        placed = await self._plan(load_AE, served_A, few)
        shifted_A, planned_A = np.zeros((2, len(layer_A)), np.bool_)
        (far_B,) = self._far(placed, floor_A, policy).nonzero()
        if len(far_B):
            floor_B, served_B = floor_A.of(far_B), served_A.of_layers(far_B)
            better, planned_B = await self._reached(load_AE[far_B], served_B, floor_B, policy)
            few_B, best_B = placed.after.imbalance[far_B].numpy(), better.after.imbalance.numpy()
            # No placement may get near the bound: then there can be doubt.
            shifted_A[far_B] = shifted_layers(few_B, best_B, floor_B, policy)
            planned_A[far_B] = planned_B
            placed = placed.with_layers(far_B, better, np.arange(len(far_B)))
        return Proposal(layer_A, placed, shifted_A, planned_A)

    async def _reached(
        self, load_BE: Loads, served_B: Placement, floor_B: Floor, policy: Policy
    ) -> tuple[Placed, npt.NDArray[np.bool_]]:
        """All moves that gain, and a new plan of the layers that they leave far from one."""
        every = Budget(None, policy.max_moves or None, _least(floor_B, policy))
        placed = await self._plan(load_BE, served_B, every, _QUICK_TOP_K)
        planned_B = np.zeros(len(load_BE), np.bool_)
        (far_C,) = self._far(placed, floor_B, policy).nonzero()
        if len(far_C):
            anew = await self._plan(load_BE[far_C], served_B.of_layers(far_C), None)
            reached_C, best_C = placed.after.imbalance[far_C].numpy(), anew.after.imbalance.numpy()
            (row_D,) = shifted_layers(reached_C, best_C, floor_B.of(far_C), policy).nonzero()
            if len(row_D):
                placed = placed.with_layers(far_C[row_D], anew, row_D)
                planned_B[far_C[row_D]] = True
        return placed, planned_B

    async def confirmed(
        self,
        proposal: Proposal,
        halves_HLE: Loads,
        served: Placement,
        floor: Floor,
        policy: Policy,
    ) -> Layers:
        """Rows of a proposal that independent halves of the load confirm.

        What one half would have its layers become is judged on the other half, both ways: a
        gain that is there in both is no accident of either's counts. Layers stay whose
        gain is none in the mean of both, unless they are so far off that there is no doubt.
        """
        kept_A = proposal.shifted_A.copy()
        (row_B,) = ((proposal.moves_of_layers > 0) & ~kept_A).nonzero()
        if len(row_B):
            # Both halves in one call, one after the other.
            layer_2B = np.tile(proposal.layer_A[row_B], 2)
            plan_2BE, judge_2BE = (
                np.concatenate([half_LE[proposal.layer_A[row_B]] for half_LE in halves])
                for halves in (halves_HLE, halves_HLE[::-1])
            )
            served_2B = served.of_layers(layer_2B)
            few = Budget(policy.max_moves_per_layer, None, _least(floor.of(layer_2B), policy))
            other = await self._plan(plan_2BE, served_2B, few, _QUICK_TOP_K)
            was_2B, is_2B = (
                _imbalance(placement, judge_2BE) for placement in (served_2B, other.placement)
            )
            gain_B = (1.0 - is_2B / was_2B).reshape(2, -1).sum(0)
            kept_A[row_B[gain_B > 0]] = True
        return np.asarray(kept_A.nonzero()[0])

    async def _plan(
        self,
        load: Loads,
        served: Placement,
        budget: Budget | None,
        top_k: int = DEFAULT_TOP_K,
    ) -> Placed:
        # A new plan is rare, and moves a lot: it is worth the better effort.
        options = Options() if budget else Options("balanced")
        terms = Terms(self._topology, budget, options, top_k)
        return await self._planner.place(load, terms, served)

    def _far(self, placed: Placed, floor: Floor, policy: Policy) -> npt.NDArray[np.bool_]:
        after = placed.after
        return shifted_layers(after.imbalance.numpy(), after.bound.numpy(), floor, policy)


def _imbalance(placement: Placement, load_LE: Loads) -> npt.NDArray[np.float64]:
    return np.asarray(imbalance(loads_with(placement, load_LE)).numpy())


def _least(floor: Floor, policy: Policy) -> tuple[float, ...]:
    """What each move has to gain, by layer."""
    return tuple(np.maximum(floor.gain_L, policy.least_gain).tolist())
