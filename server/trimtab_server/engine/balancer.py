"""Decides for one deployment, again and again, whether its experts move: the online loop.

Nothing here offers anything: what comes of a decision is up to whoever asked for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from trimtab_server.domain.placement import Placement
from trimtab_server.domain.topology import Topology
from trimtab_server.engine.planner import Options, Placed, Planner, Terms, urgent_first
from trimtab_server.loads.estimates import Loads
from trimtab_server.policy.cost import busiest_seconds
from trimtab_server.policy.decide import (
    Candidate,
    Decision,
    Reason,
    Situation,
    before_planning,
    decide,
    far_off,
    is_balanced,
)
from trimtab_server.policy.policy import Policy
from trimtab_server.solver.budget import Budget


@dataclass(frozen=True)
class View:
    """A deployment as it is now.

    Attributes:
        at: when, in seconds of a clock that rises.
        step: the last that all of its workers have reported; -1: not all have yet.
        known_steps: for how many steps the load stands.
        not_ready: why nothing can be offered; None if it can.
        load: gives tokens of each expert a step, float64 [L, E].
        served: the placement in force; None: none is.
    """

    at: float
    step: int
    known_steps: float
    not_ready: str | None
    load: Callable[[], Loads]
    served: Placement | None

    def serving(self, placement: Placement | None) -> View:
        """The same, if this one were in force."""
        return replace(self, served=placement)


class Verdict(NamedTuple):
    """A decision, and the placement that it is about; None: none was planned.

    `order` has the layers of the placement, those first that gain most.
    """

    decision: Decision
    target: Placement | None = None
    order: tuple[int, ...] = ()


class Balancer:
    """What has to be remembered from one decision to the next.

    Args:
        planner: carries out the planning.
        topology: of the deployment.
        bytes_per_expert: size of one expert's weights in one layer.
        policy: what its operators want; it may be changed.
    """

    def __init__(
        self, planner: Planner, topology: Topology, bytes_per_expert: int, policy: Policy
    ) -> None:
        self.policy = policy
        self.bytes_per_expert = bytes_per_expert
        self._planner = planner
        self._topology = topology
        self._decided_at = self._switched_at = -1
        self._moving = False
        self._seen: tuple[int, float] | None = None
        self._step_seconds = 0.0

    async def decide(self, view: View) -> Verdict:
        """What to do now.

        Raises:
            ResourceExhaustedError: the solver has too much to do, or the deployment is too
                large for it.
        """
        self._take_step(view)
        reason = before_planning(self._situation(view), self.policy)
        if reason is not None or view.served is None:
            return Verdict(Decision(reason or Reason.NOT_READY))
        load_LE, served = view.load(), view.served
        if not load_LE.any():
            return Verdict(Decision(Reason.NO_LOAD))
        self._decided_at = view.step
        improved = await self._plan(load_LE, served, self._budget())
        few_moves = self._candidate(improved)
        planned = None
        if not is_balanced(few_moves.before, self._moving, self.policy):
            planned = await self._with_new_plans(load_LE, served, improved)
        decision = decide(
            few_moves,
            None if planned is None else self._candidate(planned),
            moving=self._moving,
            step_seconds=self._step_seconds,
            policy=self.policy,
        )
        self._moving = not is_balanced(few_moves.before, self._moving, self.policy)
        chosen = planned if planned and decision.reason is Reason.REPLANNED else improved
        return Verdict(decision, chosen.placement, urgent_first(chosen))

    def forget(self) -> None:
        """The load is forgotten, and with it what was made of it."""
        self._decided_at = self._switched_at = -1
        self._moving = False

    def switched(self) -> None:
        """What was decided last is on its way."""
        self._switched_at = self._decided_at

    def _take_step(self, view: View) -> None:
        """Learn how long a step takes; steps that begin anew are those of a new group.

        Before the first report it is as if steps had begun at 0: too short for a moment where
        they had not, which makes moves look dear.
        """
        step, at = self._seen or (view.step, view.at)
        if view.step < step:
            self._decided_at = self._switched_at = -1
        elif step < view.step:
            self._step_seconds = (view.at - at) / (view.step - step)
        if view.step != step or self._seen is None:
            self._seen = view.step, view.at

    def _situation(self, view: View) -> Situation:
        return Situation(
            step=view.step,
            decided_at=self._decided_at,
            switched_at=self._switched_at,
            not_ready=view.not_ready,
            known_steps=view.known_steps,
            step_seconds=self._step_seconds,
        )

    async def _plan(self, load_LE: Loads, served: Placement, budget: Budget | None) -> Placed:
        # A new plan is rare, and moves a lot: it is worth the better effort.
        options = Options() if budget else Options("balanced")
        terms = Terms(self._topology, budget, options)
        return await self._planner.place(load_LE, terms, served)

    def _budget(self) -> Budget:
        policy = self.policy
        return Budget(
            max_moves_per_layer=policy.max_moves_per_layer, max_moves=policy.max_moves or None
        )

    async def _with_new_plans(
        self, load_LE: Loads, served: Placement, improved: Placed
    ) -> Placed | None:
        """The improvement, with new plans of the layers that it leaves far off; None: it does not.

        Those layers alone are planned anew: the others keep what they have.
        """
        after = improved.after
        imbalance_L, bound_L = after.imbalance.numpy(), after.bound.numpy()
        (far_A,) = (far_off(imbalance_L, bound_L, self.policy) & after.loaded.numpy()).nonzero()
        if not len(far_A):
            return None
        anew = await self._plan(load_LE[far_A], served.of_layers(far_A), None)
        taken_A = far_off(imbalance_L[far_A], anew.after.imbalance.numpy(), self.policy)
        if not taken_A.any():
            return None
        return improved.with_layers(far_A[taken_A], anew, taken_A.nonzero()[0])

    def _candidate(self, placed: Placed) -> Candidate:
        before, moves = placed.before, placed.moves
        if before is None or moves is None:
            raise LookupError("planned from nothing in force")
        loaded_L = before.loaded
        return Candidate(
            before=float(before.imbalance[loaded_L].mean()),
            after=float(placed.after.imbalance[loaded_L].mean()),
            moves=len(moves),
            seconds=busiest_seconds(
                moves,
                self._topology,
                self.bytes_per_expert,
                self.policy.node_bandwidth,
                self.policy.cross_node_bandwidth,
            ),
        )
