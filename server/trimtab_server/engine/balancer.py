"""Decides for one deployment, again and again, whether its experts move: the online loop.

Nothing here offers anything: what comes of a decision is up to whoever asked for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from trimtab_server.domain.balance import imbalance, loads_with
from trimtab_server.domain.placement import Placement
from trimtab_server.domain.topology import Topology
from trimtab_server.engine.planner import Planner, largest_first
from trimtab_server.engine.promises import Promise, Promises
from trimtab_server.engine.proposal import Layers, Proposal, Proposer
from trimtab_server.engine.tallies import Counted
from trimtab_server.loads.estimates import Loads
from trimtab_server.loads.evidence import Evidence, Known
from trimtab_server.policy.cost import busiest_seconds
from trimtab_server.policy.decide import (
    Candidate,
    Certainty,
    Decision,
    Reason,
    Situation,
    before_planning,
    decide,
)
from trimtab_server.policy.floor import Floor, floor_of
from trimtab_server.policy.policy import Policy
from trimtab_server.policy.trust import Judgement


@dataclass(frozen=True)
class View:
    """A deployment as it is now.

    Attributes:
        at: when, in seconds of a clock that rises.
        step: the last that all of its workers have reported; -1: not all have yet.
        known_steps: for how many steps the load stands.
        not_ready: why nothing can be offered; None if it can.
        known: gives the load, and what it rests on.
        counted: gives all that was counted, which the load is an average of.
        served: the placement in force; None: none is.
    """

    at: float
    step: int
    known_steps: float
    not_ready: str | None
    known: Callable[[], Known]
    counted: Callable[[], Counted]
    served: Placement | None

    def serving(self, placement: Placement | None) -> View:
        """The same, if this one were in force."""
        return replace(self, served=placement)


class Verdict(NamedTuple):
    """A decision, and the placement that it is about; None: none was planned.

    `order` has the layers of the placement, those first that gain most. `judged` is what has come
    of an earlier switch; None: it is not to be said yet.
    """

    decision: Decision
    target: Placement | None = None
    order: tuple[int, ...] = ()
    judged: Judgement | None = None


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
        self._proposer = Proposer(planner, topology)
        self._topology = topology
        self._seen: tuple[int, float] | None = None
        self._step_seconds = 0.0
        self._decided_at = self._switched_at = -1
        self._settled = False
        self._promises = Promises(topology)
        self._decided: Promise | None = None

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
        known, served = view.known(), view.served
        if not known.load_LE.any():
            return Verdict(Decision(Reason.NO_LOAD))
        self._decided_at, evidence = view.step, known.evidence
        judged = self._promises.judged(view.step, view.counted, evidence.overdispersion)
        floor = floor_of(evidence, self._topology, self._promises.trust.distrust)
        loads_LG = loads_with(served, known.load_LE).numpy()
        certainty = self._certainty(evidence, floor)
        layer_A = self._layers(floor, loads_LG)
        if not len(layer_A):
            reason = Reason.BALANCED if self._settled else Reason.NOT_ENOUGH_EVIDENCE
            as_it_is = self._candidate(None, loads_LG)
            return Verdict(Decision(reason, as_it_is, certainty), judged=judged)
        promises = self._promises
        proposal = await self._proposed(known, served, floor, layer_A)
        if promises is not self._promises:
            # The load has been forgotten meanwhile.
            return Verdict(Decision(Reason.NO_LOAD))
        candidate, planned = self._candidate(proposal, loads_LG), bool(proposal.planned_A.any())
        reason = decide(
            candidate, planned=planned, step_seconds=self._step_seconds, policy=self.policy
        )
        decision = Decision(reason, candidate, certainty)
        target = proposal.applied_to(served)
        if decision.moves:
            self._settled = True
            moved_A = proposal.layer_A[proposal.moves_of_layers > 0]
            upon = known.load_LE, view.counted()
            self._decided = Promise.of(view.step, moved_A, served, target, *upon)
        return Verdict(decision, target, _urgent_first(proposal, len(loads_LG)), judged)

    async def _proposed(
        self, known: Known, served: Placement, floor: Floor, layer_A: Layers
    ) -> Proposal:
        """What these layers could become, as far as independent halves of the load confirm it."""
        terms, halves_HLE = (served, floor, self.policy), known.evidence.halves_HLE
        proposal = await self._proposer.propose(known.load_LE, *terms, layer_A)
        if halves_HLE is None:
            return proposal
        return proposal.only(await self._proposer.confirmed(proposal, halves_HLE, *terms))

    def forget(self) -> None:
        """The load is forgotten, and with it what was made of it."""
        self._decided_at = self._switched_at = -1
        self._settled = False
        self._promises, self._decided = Promises(self._topology), None

    def switched(self) -> None:
        """What was decided last is on its way."""
        self._switched_at = self._decided_at
        if self._decided is not None:
            self._promises.make(self._decided)
        self._decided = None

    def _take_step(self, view: View) -> None:
        """Learn how long a step takes; steps that begin anew are those of a new group.

        Before the first report it is as if steps had begun at 0: too short for a moment where
        they had not, which makes moves look dear.
        """
        step, at = self._seen or (view.step, view.at)
        if view.step < step:
            self._decided_at = self._switched_at = -1
            self._promises.forget()
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

    def _layers(self, floor: Floor, loads_LG: Loads) -> Layers:
        """Those that noise does not explain; at first, only what is plain."""
        wanted_L = floor.exceeded(loads_LG)
        self._settled = self._settled or floor.precise
        if not self._settled:
            wanted_L &= floor.obvious(_imbalance(loads_LG))
        return np.asarray(wanted_L.nonzero()[0])

    def _certainty(self, evidence: Evidence, floor: Floor) -> Certainty | None:
        """None: no layer has as much as a token."""
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

    def _candidate(self, proposal: Proposal | None, loads_LG: Loads) -> Candidate:
        """The placement with a proposal; None: as it is."""
        loaded_L, before_L = loads_LG.any(1), _imbalance(loads_LG)
        after_L, moves, seconds = before_L.copy(), 0, 0.0
        if proposal is not None:
            after_L[proposal.layer_A] = proposal.placed.after.imbalance.numpy()
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
