"""The last decisions of a deployment, for operators."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, replace

from trimtab_server.policy.decide import Decision, Reason
from trimtab_server.policy.policy import Mode
from trimtab_server.policy.trust import Judgement

_MOST = 256


@dataclass(frozen=True)
class Decided:
    """A decision, and when it was taken.

    Attributes:
        at: seconds since 1970.
        step: the last that workers had reported; -1: none.
        mode: the policy's.
        decision: what came of it.
        seconds: that it has taken.
        detail: what stood in the way, for NOT_READY.
        judged: what has come of an earlier switch, if it has come out with this decision.
        times: how many times in a row, the last one at `at`: only where nothing was planned.
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
    """Since the server's start, the last 256; how many of each reason, of all.

    Attributes:
        judged: what has come of the last switch that could be judged.
    """

    def __init__(self) -> None:
        self._newest: deque[Decided] = deque(maxlen=_MOST)
        self._counts = Counter[str]()
        self.judged: Judgement | None = None

    def add(self, decided: Decided) -> bool:
        """Take one; whether it says anything that the one before did not.

        What comes too soon is counted only: it is so most of the time.
        """
        reason = decided.decision.reason
        self.judged = decided.judged or self.judged
        self._counts[reason.value] += 1
        if reason is Reason.TOO_SOON:
            return False
        if self._newest and _says(self._newest[-1]) == _says(decided):
            again = self._newest.pop()
            self._newest.append(replace(decided, times=again.times + 1))
            return False
        self._newest.append(decided)
        return True

    def newest(self, most: int = 0) -> list[Decided]:
        """The oldest first; 0: all."""
        kept = list(self._newest)
        return kept[-most:] if most else kept

    @property
    def last(self) -> Decided | None:
        """The newest."""
        return self._newest[-1] if self._newest else None

    @property
    def counts(self) -> Mapping[str, int]:
        """Decisions by reason."""
        return dict(self._counts)


def _says(decided: Decided) -> object:
    """What decisions have in common that are kept as one; those that planned are kept each."""
    if decided.decision.candidate is not None:
        return object()
    return decided.decision.reason, decided.mode
