"""Deployments: what they are, how they are, and the placements that they serve by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trimtab_client.options import Topology
from trimtab_client.placement import Placement
from trimtab_client.policies import Decision, Judgement, Policy
from trimtab_protocol.version import Version


@dataclass(frozen=True)
class DeploymentSpec:
    """What a deployment is. Its workers have to agree with all of it.

    Attributes:
        name: its name.
        num_layers: L, MoE layers.
        num_experts: E, logical experts of a layer.
        topology: slots, GPUs, nodes and groups.
        model: which model it serves, for people; empty: not said.
        first_layer: of the model's MoE layers, the first that the deployment has: pipeline
            stages are a deployment each.
    """

    name: str
    num_layers: int
    num_experts: int
    topology: Topology
    model: str = ""
    first_layer: int = 0


@dataclass(frozen=True)
class Imbalance:
    """Heaviest GPU load / mean GPU load, over the layers that have load.

    Attributes:
        worst: of the worst layer.
        median: of the median layer.
        mean: over layers.
        layers: how many have load; 0: a server that does not say.
    """

    worst: float
    median: float
    mean: float
    layers: int = 0


@dataclass(frozen=True, kw_only=True)
class BalanceStatus:
    """How balanced a deployment is with the placement in force.

    Attributes:
        predicted: as the load of the last reports predicts it; None: none has come yet.
        predicted_smoothed: the same by the load estimate, which decisions are made on.
        measured: as the GPUs have had it, in the last reports; None unless the workers' counts
            are of scope LOCAL, and all have reported.
        measured_smoothed: the same, smoothed as the estimate is.
        shadow: as the load of the last reports predicts it, had the decisions of shadow mode
            been carried out; None in other modes.
        shadow_smoothed: the same by the load estimate.
        shadow_moves: net moves that those decisions would have taken since shadow mode began,
            or since another placement came into force.
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
        worker: its name.
        gpus: the GPUs that it owns.
        connected: whether it has a session.
        incarnation: of its process.
        last_step: the last one that it has reported; None: none.
        report_age_seconds: since its last report; None: none since the server's start.
    """

    worker: str
    gpus: tuple[int, ...]
    connected: bool
    incarnation: int
    last_step: int | None
    report_age_seconds: float | None


@dataclass(frozen=True, kw_only=True)
class DeploymentStatus:
    """How a deployment is.

    Attributes:
        in_force: the version in force; None: before the first complete group.
        digest: of what is in force; empty where nothing is.
        in_force_seconds: since it came into force; None: that was before the server's start.
        phase: of the switch: "idle", "offered", "committed" or "aborting".
        switching_to: where the open switch leads; None: none is open.
        not_ready: why nothing can be offered now; None: it can.
        paused_reason: why it is paused; None: it is not.
        pinned_digest: of what it is pinned to; None: it is not.
        workers_connected: workers with a session.
        workers_absent: workers of the group without one: their last load counts on.
        step: the last one that any worker has reported; None: none.
        estimate_age_seconds: since the report of the worker that has been silent for longest;
            None: not all have reported since the server's start.
        balance: how balanced it is.
        last_decision: what was decided last, but for "too soon"; None: nothing yet.
        decisions: how many since the server's start, by the name of their reason, as in
            "improved".
        past: the versions that `roll_back` can go back to, the oldest first.
        workers: by name. Empty in what `deployments` answers.
        last_judged: what has come of the last switch that could be judged; None: none could.
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
    past: tuple[Version, ...]
    workers: tuple[WorkerStatus, ...]
    last_judged: Judgement | None = None


@dataclass(frozen=True)
class Deployment:
    """A deployment.

    Attributes:
        spec: what it is.
        policy: when its experts move; no field is None.
        status: how it is.
    """

    spec: DeploymentSpec
    policy: Policy
    status: DeploymentStatus


@dataclass(frozen=True)
class ServedPlacement:
    """A placement that a deployment serves by, or has served by.

    Attributes:
        version: its version.
        placement: it.
        topology: slots, GPUs, nodes and groups.
    """

    version: Version
    placement: Placement
    topology: Topology
