"""The status of a deployment, for operators and metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trimtab_protocol.messages import SwitchedBy
from trimtab_protocol.version import Version
from trimtab_server.domain.balance import OverLayers
from trimtab_server.engine.decision_log import LoggedDecision
from trimtab_server.policy.trust import Judgement
from trimtab_server.rollout.record import Served


@dataclass(frozen=True)
class BalanceStatus:
    """Imbalance (heaviest GPU load / mean GPU load), over layers. None if unknown.

    Attributes:
        predicted: of the placement in force, for the load of the last reports.
        predicted_smoothed: the same for the load estimate, which decisions are based on.
        measured: of what the GPUs processed according to the last reports. Only known if workers
            count what their own slots process, and all have reported.
        measured_smoothed: the same, smoothed as the load estimate is, whatever placements were
            in force meanwhile.
        shadow: like `predicted`, for the placement of shadow mode.
        shadow_smoothed: like `predicted_smoothed`, for the placement of shadow mode.
    """

    predicted: OverLayers | None = None
    predicted_smoothed: OverLayers | None = None
    measured: OverLayers | None = None
    measured_smoothed: OverLayers | None = None
    shadow: OverLayers | None = None
    shadow_smoothed: OverLayers | None = None


@dataclass(frozen=True)
class WorkerStatus:
    """A worker of the current group, or one that has joined for the next group.

    Attributes:
        gpus: the GPUs that it owns.
        connected: whether it has a session.
        last_step: the last step that it has reported; -1 if it has reported none.
        report_age: seconds since its last report; None if there was none since the server's start.
    """

    worker: str
    gpus: tuple[int, ...]
    connected: bool
    incarnation: int
    last_step: int
    report_age: float | None


@dataclass(frozen=True)
class Status:
    """The current state of a deployment.

    Attributes:
        in_force: version of the placement in force; None before the first complete group.
        digest: of the placement in force.
        in_force_seconds: age of the placement in force; None if it predates the server's start.
        phase: of the switch: "idle", "offered", "committed" or "aborting".
        switching_to: version that the open switch leads to; None if no switch is open.
        not_ready: why nothing can be offered; None if it can.
        mode: "pinned", or the mode of the policy.
        paused: why it is paused; None if it is not.
        pinned: digest of the pinned placement; None if there is none.
        workers: sorted by name.
        serving: number of connected workers by the placement that they serve with: the one in
            force ("in_force"), that of the open switch ("next"), or any other ("other").
        step: the last step that any worker has reported; -1 if there is none.
        known_seconds: for how long this server process has known the deployment.
        balance: imbalance now.
        shadow_moves: net moves that shadow mode would have made.
        last_decision: None if there is none.
        decisions: number of decisions since the server's start, by reason.
        past: placements to which it can be rolled back, the oldest first.
        last_judgement: the result of the last switch that could be judged; None if there is none.
        switched_by: who moves the weights.
        unused_seconds: time since it had a session, or its engine called; 0 if it is in use.
        sessions_refused: number of workers' sessions that were refused since the server's start.
        last_refusal: the last of these, with the worker's name; empty if there is none.
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
    balance: BalanceStatus
    shadow_moves: int
    last_decision: LoggedDecision | None
    decisions: Mapping[str, int]
    past: tuple[Served, ...]
    last_judgement: Judgement | None = None
    switched_by: str = SwitchedBy.WORKERS
    unused_seconds: float = 0.0
    sessions_refused: int = 0
    last_refusal: str = ""

    @property
    def absent(self) -> int:
        """Number of workers without a session. Their last load still counts."""
        return sum(not each.connected for each in self.workers)

    @property
    def estimate_age(self) -> float | None:
        """Age in seconds of the oldest worker's last report; None before the first report.

        A worker that has not reported since the server's start has been silent for at least that
        long.
        """
        if self.step < 0:
            return None
        ages = (each.report_age for each in self.workers)
        return max((self.known_seconds if age is None else age for age in ages), default=None)
