"""Deployments: their specs, their status, and their placements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from trimtab_client.options import Topology
from trimtab_client.placement import Placement
from trimtab_client.policies import Decision, Judgement, Policy
from trimtab_protocol.messages import SwitchedBy
from trimtab_protocol.version import Version


@dataclass(frozen=True)
class DeploymentSpec:
    """The name and the shape of a deployment. Its workers have to agree with all of it.

    Attributes:
        num_layers: L, MoE layers.
        num_experts: E, logical experts of a layer.
        model: name of the model, for people; may be empty.
        first_layer: the first of the model's MoE layers that belongs to the deployment: each
            pipeline stage is a deployment of its own.
        switched_by: who moves the weights when the deployment switches.
    """

    name: str
    num_layers: int
    num_experts: int
    topology: Topology
    model: str = ""
    first_layer: int = 0
    switched_by: SwitchedBy = SwitchedBy.WORKERS


@dataclass(frozen=True)
class Imbalance:
    """Heaviest GPU load / mean GPU load, over the layers that have load.

    Attributes:
        layers: how many layers have load; 0 if the server is too old to say.
    """

    worst: float
    median: float
    mean: float
    layers: int = 0


@dataclass(frozen=True, kw_only=True)
class BalanceStatus:
    """How balanced a deployment is with its current placement.

    Attributes:
        predicted: by the load of the last reports; None if none has come yet.
        predicted_smoothed: by the load estimate, on which decisions rest.
        measured: on the GPUs themselves, in the last reports; None unless the workers' counts have
            scope LOCAL, and all workers have reported.
        measured_smoothed: the same, smoothed like the load estimate.
        shadow: by the load of the last reports, as if the decisions of shadow mode had been carried
            out; None in other modes.
        shadow_smoothed: the same by the load estimate.
        shadow_moves: net moves of those decisions since shadow mode began, or since another
            placement came into force.
    """

    predicted: Imbalance | None = None
    predicted_smoothed: Imbalance | None = None
    measured: Imbalance | None = None
    measured_smoothed: Imbalance | None = None
    shadow: Imbalance | None = None
    shadow_smoothed: Imbalance | None = None
    shadow_moves: int = 0


@dataclass(frozen=True, kw_only=True)
class WorkerStatus:
    """One of a deployment's workers.

    Attributes:
        gpus: the GPUs that it owns.
        connected: whether it has a session.
        incarnation: rises with each start of its process.
        last_step: the last step that it has reported; None if there is none.
        report_age_seconds: time since its last report; None if it has not reported since the
            server's start.
    """

    worker: str
    gpus: tuple[int, ...]
    connected: bool
    incarnation: int
    last_step: int | None
    report_age_seconds: float | None


class PlacementCause(Enum):
    """Why a placement came into force.

    STARTED: the group started with it. DECIDED: by the policy. TRIGGERED, PINNED, ROLLED_BACK: by
    an operator. UNKNOWN: an older server noted none, or a newer one has a cause that this client
    does not know.
    """

    STARTED = "started"
    DECIDED = "decided"
    TRIGGERED = "triggered"
    PINNED = "pinned"
    ROLLED_BACK = "rolled_back"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class RollbackPoint:
    """A placement that `roll_back` can return to: it was in force when a rollout began.

    Attributes:
        version: of the placement.
        cause: why it came into force.
        since: when it came into force; None if that is not known.
        until: when the rollout began that replaced it; None if that is not known.
        imbalance: predicted when it was replaced, smoothed, mean over layers; None if it is not
            known.
    """

    version: Version
    cause: PlacementCause
    since: datetime | None
    until: datetime | None
    imbalance: float | None


@dataclass(frozen=True, kw_only=True)
class DeploymentStatus:
    """The state of a deployment.

    Attributes:
        in_force: version of the current placement; None before the first complete group.
        digest: of the current placement; empty if there is none.
        in_force_seconds: time since it came into force; None if that was before the server's start.
        phase: of the switch: "idle", "offered", "committed" or "aborting".
        switching_to: the target of the open switch; None if none is open.
        not_ready: why nothing can be offered now; None if something can.
        paused_reason: why it is paused; None if it is not.
        pinned_digest: of the pinned placement; None if it is not pinned.
        workers_connected: workers with a session.
        workers_absent: workers of the group without one. Their last load still counts.
        step: the last step that any worker has reported; None if there is none.
        estimate_age_seconds: time since the last report of the worker that has been silent for
            longest; None if not all have reported since the server's start.
        last_decision: the last decision, apart from "too soon"; None if there is none yet.
        decisions: number of decisions since the server's start, by their reason, such as
            "improved".
        points: the placements that `roll_back` can return to, oldest first.
        workers: sorted by name. Empty in the result of `deployments`.
        last_judged: the gain of the last switch that could be judged; None if there is none.
        unused_seconds: time since it had a session, or its engine called. 0 if it is in use, or if
            the server is too old to say.
        sessions_refused: number of workers' sessions that were refused since the server's start.
        last_refusal: why, and to which worker, the last of these; None if there is none.
    """

    in_force: Version | None
    digest: bytes
    in_force_seconds: float | None
    phase: str
    switching_to: Version | None
    not_ready: str | None
    paused_reason: str | None
    pinned_digest: bytes | None
    workers_connected: int
    workers_absent: int
    step: int | None
    estimate_age_seconds: float | None
    balance: BalanceStatus
    last_decision: Decision | None
    decisions: Mapping[str, int]
    points: tuple[RollbackPoint, ...]
    workers: tuple[WorkerStatus, ...]
    last_judged: Judgement | None = None
    unused_seconds: float = 0.0
    sessions_refused: int = 0
    last_refusal: str | None = None

    @property
    def past(self) -> tuple[Version, ...]:
        """The versions of `points`."""
        return tuple(each.version for each in self.points)


@dataclass(frozen=True)
class Deployment:
    """A deployment. No setting of its policy is None."""

    spec: DeploymentSpec
    policy: Policy
    status: DeploymentStatus


@dataclass(frozen=True, kw_only=True)
class ServerStatus:
    """The state of the server itself.

    Attributes:
        version: of the server.
        term: rises with each start of the server.
        uptime_seconds: time since its start.
        store_failure: why its store fails; None if it works. While it fails, the server refuses
            sessions and changes of deployments, and its health is NOT_SERVING.
        deployments: number of deployments.
        sessions: number of open sessions.
    """

    version: str
    term: int
    uptime_seconds: float
    store_failure: str | None
    deployments: int
    sessions: int


@dataclass(frozen=True)
class ServedPlacement:
    """The current placement of a deployment, or an earlier one."""

    version: Version
    placement: Placement
    topology: Topology
