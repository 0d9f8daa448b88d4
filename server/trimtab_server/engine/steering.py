"""Where a deployment goes by itself: to its pin, or where its policy has its experts move."""

from __future__ import annotations

import time

from trimtab_server.engine.arrival import Facts
from trimtab_server.engine.balancer import Balancer, Verdict, View
from trimtab_server.engine.decision_log import Decided, DecisionLog
from trimtab_server.engine.planner import Planner
from trimtab_server.engine.shadow import Shadow
from trimtab_server.engine.teller import Teller
from trimtab_server.policy.decide import Reason
from trimtab_server.policy.policy import Mode, Policy


class Steering:
    """Asked again and again.

    Args:
        facts: of the deployment.
        policy: what its operators want.
        planner: carries out the planning; None: nothing is decided.
        teller: told of each decision.

    Attributes:
        decisions: the last ones.
        shadow: what shadow mode would have come to.
    """

    def __init__(
        self, facts: Facts, policy: Policy, planner: Planner | None, teller: Teller
    ) -> None:
        self.policy = policy
        self.decisions = DecisionLog()
        self.shadow = Shadow()
        self._teller = teller
        self._balancer = None
        if planner is not None:
            self._balancer = Balancer(planner, facts.topology, facts.bytes_per_expert, policy)

    def adopt(self, facts: Facts, policy: Policy) -> None:
        """Go on with these."""
        self.policy = policy
        if policy.mode is not Mode.SHADOW:
            self.shadow.end()
        if self._balancer is not None:
            self._balancer.policy = policy
            self._balancer.bytes_per_expert = facts.bytes_per_expert

    async def decide(self, view: View) -> Verdict | None:
        """What was decided, and where to go now, if anywhere; None: the policy is not asked.

        Raises:
            ResourceExhaustedError: see `Balancer.decide`.
        """
        mode = self.policy.mode
        if self._balancer is None or mode is Mode.OFF:
            return None
        if mode is Mode.SHADOW:
            view = view.serving(self.shadow.follow(view.served))
        begun = time.perf_counter()
        verdict = await self._balancer.decide(view)
        decision, target = verdict.decision, verdict.target
        self._note(view, mode, verdict, time.perf_counter() - begun)
        if target is None or not decision.moves:
            return Verdict(decision)
        if mode is not self.policy.mode:
            # It was changed meanwhile.
            return Verdict(decision)
        if mode is Mode.SHADOW:
            moves = decision.candidate.moves if decision.candidate else 0
            self.shadow.go_to(target, moves)
            self._balancer.switched()
            return Verdict(decision)
        return verdict

    def forget(self) -> None:
        """The load is forgotten: what is decided next is as after a start."""
        if self._balancer is not None:
            self._balancer.forget()

    def switched(self) -> None:
        """What was decided last is on its way."""
        if self._balancer is not None:
            self._balancer.switched()

    def _note(self, view: View, mode: Mode, verdict: Verdict, seconds: float) -> None:
        decision = verdict.decision
        detail = (view.not_ready or "") if decision.reason is Reason.NOT_READY else ""
        decided = Decided(time.time(), view.step, mode, decision, seconds, detail, verdict.judged)
        self._teller.decided(decided, news=self.decisions.add(decided))
