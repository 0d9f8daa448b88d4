"""The online loop of one deployment: plans, and decides whether the plan is worth its moves.

Nothing is offered here: the caller does what the plan says.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch

from trimtab_protocol.placement import Placement
from trimtab_server.domain.balance import imbalance
from trimtab_server.domain.topology import Topology
from trimtab_server.engine.gpu_loads import GpuLoads, even_loads
from trimtab_server.engine.load_aggregator import TotalCounts
from trimtab_server.engine.next_action import (
    DeploymentSnapshot,
    GoToPin,
    Idle,
    StepHistory,
    Wait,
    next_action,
)
from trimtab_server.engine.plan_result import largest_first
from trimtab_server.engine.planner import Planner
from trimtab_server.engine.promises import Promise, Promises
from trimtab_server.engine.proposal import Layers, Proposal, Proposer, gaining_rows
from trimtab_server.loads.estimates import Loads
from trimtab_server.loads.evidence import Evidence, Known
from trimtab_server.policy.cost import busiest_seconds
from trimtab_server.policy.decide import Candidate, Certainty, Decision, Reason, decide
from trimtab_server.policy.floor import Floor, floor_of
from trimtab_server.policy.policy import Policy
from trimtab_server.policy.trust import Judgement


class LoadSource(Protocol):
    """The load to plan for. `LoadAggregator` is one; tests and benchmarks have another."""

    def known_load(self) -> Known:
        """The load, and the evidence that it rests on."""

    def total_counts(self) -> TotalCounts:
        """All tokens that were counted, of which the load is an average."""


class RebalancePlan(NamedTuple):
    """A decision, and what it is about.

    Attributes:
        decision: whether experts move, and why.
        target: the placement that was planned; None if nothing was planned.
        order: layers of the target, those first that gain most.
        judged: the result of an earlier switch, if it became known just now.
    """

    decision: Decision
    target: Placement | None = None
    order: tuple[int, ...] = ()
    judged: Judgement | None = None


class Rebalancer:
    """Decides again and again, and remembers what the next decision depends on.

    Args:
        planner: makes the plans; None if this server makes none.
        topology: of the deployment.
        bytes_per_expert: size of one expert's weights in one layer. May be changed later.
        policy: what the operators want. May be changed later.

    Attributes:
        gpu_loads: predicts the load of each GPU. May be changed.
    """

    def __init__(
        self, planner: Planner | None, topology: Topology, bytes_per_expert: int, policy: Policy
    ) -> None:
        self.policy = policy
        self.bytes_per_expert = bytes_per_expert
        self.gpu_loads: GpuLoads = even_loads
        self._proposer = None if planner is None else Proposer(planner, topology)
        self._topology = topology
        self._history = StepHistory()
        self._settled = False
        self._promises = Promises(topology)
        self._decided: Promise | None = None

    async def decide(
        self, snapshot: DeploymentSnapshot, loads: LoadSource
    ) -> Idle | GoToPin | RebalancePlan:
        """Find out what to do next, and make a plan if that is it.

        Raises:
            ResourceExhaustedError: the solver has too much to do, or the deployment is too large.
        """
        before, step = self._history, snapshot.step
        history = before.observed(step, snapshot.at)
        if snapshot.step_seconds is not None:
            history = replace(history, step_seconds=snapshot.step_seconds)
        action = next_action(replace(snapshot, history=history), self.policy)
        if isinstance(action, Idle | GoToPin):
            return action
        if self._proposer is None:
            return Idle()
        self._history = history
        if before.restarts_at(step):
            self._promises.clear()
        if isinstance(action, Wait):
            return RebalancePlan(Decision(action.reason))
        return await self._plan(self._proposer, action.start, step, loads)

    def reset(self) -> None:
        """Forget the load, and all that was learned from it."""
        self._history = replace(self._history, decided_at=-1, switched_at=-1)
        self._settled = False
        self._promises, self._decided = Promises(self._topology), None

    def rollout_started(self) -> None:
        """A rollout to the target that was planned last has begun."""
        self._history = replace(self._history, switched_at=self._history.decided_at)
        if self._decided is not None:
            self._promises.add(self._decided)
        self._decided = None

    async def _plan(
        self, proposer: Proposer, start: Placement, step: int, loads: LoadSource
    ) -> RebalancePlan:
        known = loads.known_load()
        if not known.load_LE.any():
            return RebalancePlan(Decision(Reason.NO_LOAD))
        self._history, evidence = replace(self._history, decided_at=step), known.evidence
        terms = step, loads.total_counts, evidence.overdispersion, self.gpu_loads
        judged = self._promises.judge_oldest(*terms)
        floor = floor_of(evidence, self._topology, self._promises.trust.distrust)
        loads_LG = self.gpu_loads(start, known.load_LE).numpy()
        certainty = self._certainty(evidence, floor)
        layer_A = self._layers_to_plan(floor, loads_LG)
        if not len(layer_A):
            reason = Reason.BALANCED if self._settled else Reason.NOT_ENOUGH_EVIDENCE
            unchanged = self._candidate(None, known.load_LE, loads_LG)
            return RebalancePlan(Decision(reason, unchanged, certainty), judged=judged)
        promises = self._promises
        proposal = await self._confirmed(proposer, known, start, floor, layer_A)
        if promises is not self._promises:
            # The load was reset while the plan was made.
            return RebalancePlan(Decision(Reason.NO_LOAD))
        candidate = self._candidate(proposal, known.load_LE, loads_LG)
        planned = bool(proposal.planned_A.any())
        reason = decide(
            candidate,
            planned=planned,
            step_seconds=self._history.step_seconds,
            policy=self.policy,
        )
        decision = Decision(reason, candidate, certainty)
        target = proposal.applied_to(start)
        if decision.moves:
            self._settled = True
            moved_A = proposal.layer_A[proposal.moves_of_layers > 0]
            basis = known.load_LE, loads.total_counts()
            self._decided = Promise(step, moved_A, start, target, *basis)
        return RebalancePlan(decision, target, _urgent_first(proposal, len(loads_LG)), judged)

    async def _confirmed(
        self, proposer: Proposer, known: Known, start: Placement, floor: Floor, layer_A: Layers
    ) -> Proposal:
        """A proposal for these layers, as far as independent halves of the load confirm it."""
        terms, halves_HLE = (start, floor, self.policy), known.evidence.halves_HLE
        proposal = await proposer.propose(known.load_LE, *terms, layer_A)
        if halves_HLE is not None:
            confirmed = proposer.confirmed_rows(proposal, halves_HLE, *terms, self.gpu_loads)
            proposal = proposal.select(await confirmed)
        if self.gpu_loads is even_loads or not len(proposal.layer_A):
            return proposal
        # The solver counts on even shares.
        return proposal.select(gaining_rows(proposal, known.load_LE, *terms, self.gpu_loads))

    def _layers_to_plan(self, floor: Floor, loads_LG: Loads) -> Layers:
        """Layers whose imbalance noise does not explain; at first, only the obvious ones."""
        wanted_L = floor.exceeded(loads_LG)
        self._settled = self._settled or floor.precise
        if not self._settled:
            wanted_L &= floor.obvious(_imbalance(loads_LG))
        return np.asarray(wanted_L.nonzero()[0])

    def _certainty(self, evidence: Evidence, floor: Floor) -> Certainty | None:
        """How much is known about the load; None if no layer has as much as one token."""
        known_L = np.isfinite(floor.sigma_L)
        if not known_L.any():
            return None
        return Certainty(
            tokens=evidence.tokens,
            overdispersion=evidence.overdispersion,
            noise=1.0 + float(floor.excess_L[known_L].mean()),
            sigma=float(np.sqrt(np.square(floor.sigma_L[known_L]).sum()) / known_L.sum()),
            distrust=self._promises.trust.distrust,
        )

    def _candidate(self, proposal: Proposal | None, load_LE: Loads, loads_LG: Loads) -> Candidate:
        """The placement that a proposal leads to; the unchanged one for None."""
        loaded_L, before_L = loads_LG.any(1), _imbalance(loads_LG)
        after_L, moves, seconds = before_L.copy(), 0, 0.0
        if proposal is not None and len(proposal.layer_A):
            placement, layer_A = proposal.placed.placement, proposal.layer_A
            after_L[layer_A] = _imbalance(
                self.gpu_loads(placement, load_LE[layer_A], layer_A).numpy()
            )
            to_make, policy = proposal.moves(), self.policy
            bandwidths = policy.node_bandwidth, policy.cross_node_bandwidth
            moves = len(to_make)
            seconds = busiest_seconds(to_make, self._topology, self.bytes_per_expert, *bandwidths)
        before, after = (float(each_L[loaded_L].mean()) for each_L in (before_L, after_L))
        return Candidate(before, after, moves, seconds)


def _imbalance(loads_LG: Loads) -> npt.NDArray[np.float64]:
    return np.asarray(imbalance(torch.from_numpy(loads_LG)).numpy())


def _urgent_first(proposal: Proposal, layers: int) -> tuple[int, ...]:
    """All layers, those first whose imbalance falls most."""
    gain_L, placed = np.zeros(layers), proposal.placed
    if placed.before is not None:
        gain_L[proposal.layer_A] = (placed.before.imbalance - placed.after.imbalance).numpy()
    return largest_first(gain_L)
