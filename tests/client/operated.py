"""A deployment as the client's value, every field set, and as a server answers it.

Fields of the same name hold the same, except for those that the messages below name.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from tests.client.service import tensor_of
from trimtab.v1 import placement_pb2
from trimtab.v1alpha1 import deployment_service_pb2 as pb
from trimtab_client import (
    BalanceStatus,
    Certainty,
    Decision,
    Deployment,
    DeploymentSpec,
    DeploymentStatus,
    Imbalance,
    Judgement,
    Mode,
    Placement,
    PlacementCause,
    Policy,
    Reason,
    RollbackPoint,
    SwitchedBy,
    Topology,
    Version,
    WorkerStatus,
)

PLACEMENT = Placement.untouched(3, 4, 6, 2)
DIGEST = PLACEMENT.digest
OTHER = Placement.of(PLACEMENT.phy2log[:, ::-1], 4, 2)

POLICY = Policy(
    mode=Mode.SHADOW,
    half_life_steps=16.0,
    window_steps=0.0,
    every_steps=8,
    cooldown_steps=4,
    least_gain=0.02,
    max_moves_per_layer=3,
    max_moves=0,
    replan_gap=0.25,
    horizon_steps=1000,
    moe_share=0.5,
    node_bandwidth=1e11,
    cross_node_bandwidth=2.5e10,
)
POLICY_MESSAGE = pb.Policy(**{**asdict(POLICY), "mode": pb.MODE_SHADOW})

SPEC = DeploymentSpec(
    "d", 3, 4, Topology(6, 2, 2, 2), model="m", first_layer=5, switched_by=SwitchedBy.ENGINE
)
SPEC_MESSAGE = pb.DeploymentSpec(**{**asdict(SPEC), "switched_by": pb.SWITCHED_BY_ENGINE})

JUDGED = Judgement(step=26, steps=64, promised=0.5, realised=0.375)
JUDGED_MESSAGE = pb.Judgement(**asdict(JUDGED))

DECISION = Decision(
    time=datetime(2026, 11, 23, 15, 4, 5, 250_000, tzinfo=UTC),
    step=90,
    reason=Reason.IMPROVED,
    detail="",
    mode=Mode.SHADOW,
    imbalance_before=1.5,
    imbalance_after=1.125,
    moves=7,
    move_seconds=0.25,
    times=1,
    certainty=Certainty(tokens=4096.0, overdispersion=1.5, noise=1.25, sigma=0.125, distrust=2.0),
    judged=JUDGED,
)
DECISION_MESSAGE = pb.Decision(
    **{
        **asdict(DECISION),
        "time": Timestamp(seconds=1_795_446_245, nanos=250_000_000),
        "reason": pb.REASON_IMPROVED,
        "mode": pb.MODE_SHADOW,
    }
)

SINCE, UNTIL = datetime(2026, 11, 23, 15, tzinfo=UTC), datetime(2026, 11, 23, 16, tzinfo=UTC)
STATUS = DeploymentStatus(
    in_force=Version(2, 7),
    digest=DIGEST,
    in_force_seconds=12.5,
    phase="offered",
    switching_to=Version(2, 8),
    not_ready="the switch to 2.8 is offered",
    paused_reason="maintenance",
    pinned_digest=OTHER.digest,
    workers_connected=1,
    workers_absent=1,
    step=99,
    estimate_age_seconds=1.5,
    balance=BalanceStatus(
        predicted=Imbalance(3.0, 2.0, 2.5, 7),
        predicted_smoothed=Imbalance(2.75, 1.5, 1.75, 7),
        measured=Imbalance(4.0, 3.0, 3.5, 7),
        measured_smoothed=Imbalance(3.75, 2.5, 2.25, 7),
        shadow=Imbalance(1.5, 1.25, 1.375, 7),
        shadow_smoothed=Imbalance(1.75, 1.5, 1.625, 7),
        shadow_moves=11,
    ),
    last_decision=DECISION,
    decisions={"improved": 2, "of_the_future": 1},
    points=(
        RollbackPoint(
            version=Version(1, 0),
            cause=PlacementCause.STARTED,
            since=SINCE,
            until=UNTIL,
            imbalance=1.5,
        ),
        RollbackPoint(
            version=Version(2, 0),
            cause=PlacementCause.UNKNOWN,
            since=None,
            until=None,
            imbalance=None,
        ),
    ),
    workers=(
        WorkerStatus(
            worker="w0",
            gpus=(0,),
            connected=True,
            incarnation=5,
            last_step=99,
            report_age_seconds=0.5,
        ),
        WorkerStatus(
            worker="w1",
            gpus=(1,),
            connected=False,
            incarnation=4,
            last_step=None,
            report_age_seconds=None,
        ),
    ),
    last_judged=JUDGED,
    unused_seconds=5400.0,
    sessions_refused=3,
    last_refusal="'w2': it does not fit",
)
STATUS_MESSAGE = pb.DeploymentStatus(
    **{
        **asdict(STATUS),
        "in_force": {"epoch": 2, "generation": 7},
        "switching_to": {"epoch": 2, "generation": 8},
        "past": [{"epoch": 1}, {"epoch": 2}],
        "points": [
            pb.RollbackPoint(
                version={"epoch": 1},
                cause=pb.PLACEMENT_CAUSE_STARTED,
                since=Timestamp(seconds=int(SINCE.timestamp())),
                until=Timestamp(seconds=int(UNTIL.timestamp())),
                imbalance=1.5,
            ),
            pb.RollbackPoint(version={"epoch": 2}),
        ],
        "last_decision": DECISION_MESSAGE,
        "workers": [
            pb.WorkerStatus(**asdict(STATUS.workers[0])),
            pb.WorkerStatus(**{**asdict(STATUS.workers[1]), "last_step": -1}),
        ],
    }
)

DEPLOYMENT = Deployment(SPEC, POLICY, STATUS)
DEPLOYMENT_MESSAGE = pb.Deployment(spec=SPEC_MESSAGE, policy=POLICY_MESSAGE, status=STATUS_MESSAGE)


def placement_message(placement: Placement, **changes: Any) -> placement_pb2.Placement:
    fields = {"phy2log": tensor_of(placement.phy2log), "digest": placement.digest, **changes}
    return placement_pb2.Placement(**fields)


def served_message(
    version: Version, placement: Placement = PLACEMENT, /, **changes: Any
) -> pb.WatchPlacementResponse:
    """What a watch says of a version; the answer of GetPlacement has the same fields."""
    fields = {
        "version": version._asdict(),
        "placement": placement_message(placement),
        "topology": {"num_replicas": 6, "num_gpus": 2},
        "num_experts": 4,
        **changes,
    }
    return pb.WatchPlacementResponse(**fields)
