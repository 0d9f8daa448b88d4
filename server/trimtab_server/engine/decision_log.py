"""The last decisions of a deployment, for operators."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, replace

from trimtab_server.policy.decide import Decision, Reason
from trimtab_server.policy.policy import Mode
from trimtab_server.policy.trust import Judgement

_MAX_KEPT = 256


@dataclass(frozen=True)
class LoggedDecision:
    """A decision, and when it was made.

    Attributes:
        at: seconds since 1970.
        step: the last step that all workers had reported; -1 if there was none.
        mode: of the policy.
        seconds: how long the decision took.
        detail: why nothing could be offered, if the reason is NOT_READY.
        judged: the result of an earlier switch, if it became known with this decision.
        times: how many times in a row it was made, the last time at `at`. Above 1 only if nothing
            was planned.
    """

    at: float
    step: int
    mode: Mode
    decision: Decision
    seconds: float = 0.0
    detail: str = ""
    judged: Judgement | None = None
    times: int = 1


class DecisionLog:
    """The last 256 decisions since the server's start, and the number of all by reason.

    Attributes:
        counts: number of decisions by reason.
        judged: the result of the last switch that could be judged; None if there is none.
    """

    def __init__(self) -> None:
        self._newest: deque[LoggedDecision] = deque(maxlen=_MAX_KEPT)
        self.counts = Counter[str]()
        self.judged: Judgement | None = None

    def add(self, logged: LoggedDecision) -> bool:
        """Add a decision; returns whether it differs from the one before.

        TOO_SOON is only counted: most decisions are.
        """
        reason = logged.decision.reason
        self.judged = logged.judged or self.judged
        self.counts[reason.value] += 1
        if reason is Reason.TOO_SOON:
            return False
        if self._newest and _kind(self._newest[-1]) == _kind(logged):
            before = self._newest.pop()
            self._newest.append(replace(logged, times=before.times + 1))
            return False
        self._newest.append(logged)
        return True

    def newest(self, limit: int = 0) -> list[LoggedDecision]:
        """The last `limit` decisions, the oldest first; 0 for all."""
        kept = list(self._newest)
        return kept[-limit:] if limit else kept

    @property
    def last(self) -> LoggedDecision | None:
        """The newest decision; None if there is none."""
        return self._newest[-1] if self._newest else None


def _kind(logged: LoggedDecision) -> object:
    """Equal for decisions that are merged into one. Decisions that planned are never merged."""
    if logged.decision.planned or logged.judged is not None:
        return object()
    return logged.decision.reason, logged.mode
