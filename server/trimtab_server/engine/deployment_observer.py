"""What the deployments tell, to whoever watches over them."""

from __future__ import annotations

from typing import Literal, NamedTuple

from trimtab_protocol.version import Version
from trimtab_server.engine.status import Status
from trimtab_server.policy.decide import Decision
from trimtab_server.policy.trust import Judgement
from trimtab_server.rollout.effects import Cause as Cause

Taken = Literal["accepted", "gap", "repeated", "refused"]
"""What became of a report. `gap`: its tokens cannot be assigned to a time."""

Outcome = Literal["offered", "committed", "applied", "aborted"]


class Standing(NamedTuple):
    """How a deployment stands.

    Attributes:
        sessions: how many are open.
        phase: of the switch: "idle", "offered", "committed" or "aborting".
        version: that the open switch leads to; None where none is open.
        paused: why nothing may be offered; None: it may.
    """

    sessions: int
    phase: str
    version: Version | None
    paused: str | None


class DeploymentObserver:
    """Receives what happens, on the event loop. Must return at once and not raise.

    This one forgets it.
    """

    def stands(self, deployment: str, standing: Standing) -> None:
        """Something has happened to the deployment, and it stands so now."""

    def gone(self, deployment: str) -> None:
        """The server has forgotten the deployment."""

    def switched(self, deployment: str, outcome: Outcome) -> None:
        """A switch has come so far."""

    def aborted(self, deployment: str, cause: Cause) -> None:
        """A switch will not take place: told beside `switched`."""

    def heard(self, kind: str) -> None:
        """A worker's message was read: "hello", "report", … or "none" where it is no kind known."""

    def delayed(self, deployment: str) -> None:
        """A worker's next message is left unread for a while: it sends more than it may."""

    def reported(self, deployment: str, taken: Taken) -> None:
        """A worker's report was taken, or was not."""

    def decided(
        self, deployment: str, decision: Decision, seconds: float, judged: Judgement | None
    ) -> None:
        """It was decided whether experts move, and why, in so long; `judged`: an earlier switch."""

    def looked(self, deployment: str, status: Status) -> None:
        """How the deployment is, told each time that reports are due."""

    def moved(self, deployment: str, moves: int, moved_bytes: int) -> None:
        """A switch has been applied, with so many net moves and bytes of weights."""

    def mismatched(self, deployment: str) -> None:
        """Workers serve by another placement than they should: told beside `alarmed`."""

    def ignored(self, deployment: str) -> None:
        """A worker answered what nobody had asked."""

    def alarmed(self, deployment: str) -> None:
        """A person should look: the logs say at what."""

    def store_failed(self) -> None:
        """The store could not do what it was asked."""
