"""How a deployment is, for operators and metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trimtab_protocol.version import Version
from trimtab_server.domain.balance import OverLayers
from trimtab_server.engine.decision_log import Decided
from trimtab_server.policy.trust import Judgement


@dataclass(frozen=True)
class Outlook:
    """Heaviest GPU / mean GPU, over layers. None: nobody can say.

    Attributes:
        predicted: of the placement in force, by the load of the last reports.
        predicted_smoothed: by the load estimate, on which decisions are made.
        measured: as the GPUs have had it in the last reports; only where workers count what
            their own slots process, and all have reported.
        measured_smoothed: the same, smoothed as the estimate is. An interval in which experts
            have moved is counted as it came.
        shadow: `predicted`, had shadow mode's decisions been carried out.
        shadow_smoothed: `predicted_smoothed`, the same.
    """

    predicted: OverLayers | None = None
    predicted_smoothed: OverLayers | None = None
    measured: OverLayers | None = None
    measured_smoothed: OverLayers | None = None
    shadow: OverLayers | None = None
    shadow_smoothed: OverLayers | None = None


@dataclass(frozen=True)
class WorkerStatus:
    """One worker of the group, or one that has come for the next.

    Attributes:
        worker: its name.
        gpus: that it owns.
        connected: whether it has a session.
        incarnation: of its process.
        last_step: that it has reported; -1: none.
        report_age: seconds since its last report; None: none since the server's start.
    """

    worker: str
    gpus: tuple[int, ...]
    connected: bool
    incarnation: int
    last_step: int
    report_age: float | None


@dataclass(frozen=True)
class Status:
    """How a deployment is now.

    Attributes:
        in_force: the version in force; None before the first complete group.
        digest: of the placement in force.
        in_force_seconds: for how long; None: since before the server's start.
        phase: of the switch: "idle", "offered", "committed" or "aborting".
        switching_to: where the open switch leads; None where none is open.
        not_ready: why nothing can be offered; None: it can.
        mode: what it does by itself: "pinned", or that of its policy.
        paused: why it is paused; None: it is not.
        pinned: digest of what it is pinned to; None: it is not.
        workers: by name.
        serving: how many workers serve by what is in force, by what the open switch leads
            to, and by anything else: "in_force", "next", "other".
        step: the last that any worker has reported; -1: none.
        known_seconds: for how long the server has known it.
        outlook: how balanced it is.
        moves_in_shadow: that shadow mode would have taken.
        decided: the last decision; None: none yet.
        decisions: how many since the server's start, by reason.
        past: versions to which it can be rolled back, the oldest first.
        judged: what has come of the last switch that could be judged; None: none could.
    """

    in_force: Version | None
    digest: bytes
    in_force_seconds: float | None
    phase: str
    switching_to: Version | None
    not_ready: str | None
    mode: str
    paused: str | None
    pinned: bytes | None
    workers: tuple[WorkerStatus, ...]
    serving: Mapping[str, int]
    step: int
    known_seconds: float
    outlook: Outlook
    moves_in_shadow: int
    decided: Decided | None
    decisions: Mapping[str, int]
    past: tuple[Version, ...]
    judged: Judgement | None = None

    @property
    def absent(self) -> int:
        """Workers without a session: what they reported last counts on."""
        return sum(not each.connected for each in self.workers)

    @property
    def estimate_age(self) -> float | None:
        """Seconds since the report of whoever has been silent for longest; None: none ever came.

        Who has not reported since the server's start has been silent for as long, at least.
        """
        if self.step < 0:
            return None
        ages = (each.report_age for each in self.workers)
        return max((self.known_seconds if age is None else age for age in ages), default=None)
