from google.protobuf import timestamp_pb2 as _timestamp_pb2
from trimtab.v1 import placement_pb2 as _placement_pb2
from trimtab.v1 import topology_pb2 as _topology_pb2
from trimtab.v1alpha1 import switch_pb2 as _switch_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Mode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODE_UNSPECIFIED: _ClassVar[Mode]
    MODE_OFF: _ClassVar[Mode]
    MODE_SHADOW: _ClassVar[Mode]
    MODE_ACTIVE: _ClassVar[Mode]

class Reason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REASON_UNSPECIFIED: _ClassVar[Reason]
    REASON_NOT_READY: _ClassVar[Reason]
    REASON_TOO_SOON: _ClassVar[Reason]
    REASON_NO_LOAD: _ClassVar[Reason]
    REASON_COOLDOWN: _ClassVar[Reason]
    REASON_BALANCED: _ClassVar[Reason]
    REASON_SMALL_GAIN: _ClassVar[Reason]
    REASON_TOO_COSTLY: _ClassVar[Reason]
    REASON_IMPROVED: _ClassVar[Reason]
    REASON_REPLANNED: _ClassVar[Reason]
    REASON_NOT_ENOUGH_EVIDENCE: _ClassVar[Reason]

class SwitchedBy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SWITCHED_BY_UNSPECIFIED: _ClassVar[SwitchedBy]
    SWITCHED_BY_WORKERS: _ClassVar[SwitchedBy]
    SWITCHED_BY_ENGINE: _ClassVar[SwitchedBy]

class PlacementCause(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PLACEMENT_CAUSE_UNSPECIFIED: _ClassVar[PlacementCause]
    PLACEMENT_CAUSE_STARTED: _ClassVar[PlacementCause]
    PLACEMENT_CAUSE_DECIDED: _ClassVar[PlacementCause]
    PLACEMENT_CAUSE_TRIGGERED: _ClassVar[PlacementCause]
    PLACEMENT_CAUSE_PINNED: _ClassVar[PlacementCause]
    PLACEMENT_CAUSE_ROLLED_BACK: _ClassVar[PlacementCause]

class OperationKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OPERATION_KIND_UNSPECIFIED: _ClassVar[OperationKind]
    OPERATION_KIND_CREATE: _ClassVar[OperationKind]
    OPERATION_KIND_UPDATE_POLICY: _ClassVar[OperationKind]
    OPERATION_KIND_DELETE: _ClassVar[OperationKind]
    OPERATION_KIND_TRIGGER: _ClassVar[OperationKind]
    OPERATION_KIND_PAUSE: _ClassVar[OperationKind]
    OPERATION_KIND_RESUME: _ClassVar[OperationKind]
    OPERATION_KIND_FORGET_LOAD: _ClassVar[OperationKind]
    OPERATION_KIND_PIN: _ClassVar[OperationKind]
    OPERATION_KIND_UNPIN: _ClassVar[OperationKind]
    OPERATION_KIND_ROLL_BACK: _ClassVar[OperationKind]
MODE_UNSPECIFIED: Mode
MODE_OFF: Mode
MODE_SHADOW: Mode
MODE_ACTIVE: Mode
REASON_UNSPECIFIED: Reason
REASON_NOT_READY: Reason
REASON_TOO_SOON: Reason
REASON_NO_LOAD: Reason
REASON_COOLDOWN: Reason
REASON_BALANCED: Reason
REASON_SMALL_GAIN: Reason
REASON_TOO_COSTLY: Reason
REASON_IMPROVED: Reason
REASON_REPLANNED: Reason
REASON_NOT_ENOUGH_EVIDENCE: Reason
SWITCHED_BY_UNSPECIFIED: SwitchedBy
SWITCHED_BY_WORKERS: SwitchedBy
SWITCHED_BY_ENGINE: SwitchedBy
PLACEMENT_CAUSE_UNSPECIFIED: PlacementCause
PLACEMENT_CAUSE_STARTED: PlacementCause
PLACEMENT_CAUSE_DECIDED: PlacementCause
PLACEMENT_CAUSE_TRIGGERED: PlacementCause
PLACEMENT_CAUSE_PINNED: PlacementCause
PLACEMENT_CAUSE_ROLLED_BACK: PlacementCause
OPERATION_KIND_UNSPECIFIED: OperationKind
OPERATION_KIND_CREATE: OperationKind
OPERATION_KIND_UPDATE_POLICY: OperationKind
OPERATION_KIND_DELETE: OperationKind
OPERATION_KIND_TRIGGER: OperationKind
OPERATION_KIND_PAUSE: OperationKind
OPERATION_KIND_RESUME: OperationKind
OPERATION_KIND_FORGET_LOAD: OperationKind
OPERATION_KIND_PIN: OperationKind
OPERATION_KIND_UNPIN: OperationKind
OPERATION_KIND_ROLL_BACK: OperationKind

class Policy(_message.Message):
    __slots__ = ("mode", "half_life_steps", "window_steps", "every_steps", "cooldown_steps", "start_above", "stop_below", "min_gain", "max_moves_per_layer", "max_moves", "replan_gap", "horizon_steps", "moe_share", "node_bandwidth", "cross_node_bandwidth", "least_gain")
    MODE_FIELD_NUMBER: _ClassVar[int]
    HALF_LIFE_STEPS_FIELD_NUMBER: _ClassVar[int]
    WINDOW_STEPS_FIELD_NUMBER: _ClassVar[int]
    EVERY_STEPS_FIELD_NUMBER: _ClassVar[int]
    COOLDOWN_STEPS_FIELD_NUMBER: _ClassVar[int]
    START_ABOVE_FIELD_NUMBER: _ClassVar[int]
    STOP_BELOW_FIELD_NUMBER: _ClassVar[int]
    MIN_GAIN_FIELD_NUMBER: _ClassVar[int]
    MAX_MOVES_PER_LAYER_FIELD_NUMBER: _ClassVar[int]
    MAX_MOVES_FIELD_NUMBER: _ClassVar[int]
    REPLAN_GAP_FIELD_NUMBER: _ClassVar[int]
    HORIZON_STEPS_FIELD_NUMBER: _ClassVar[int]
    MOE_SHARE_FIELD_NUMBER: _ClassVar[int]
    NODE_BANDWIDTH_FIELD_NUMBER: _ClassVar[int]
    CROSS_NODE_BANDWIDTH_FIELD_NUMBER: _ClassVar[int]
    LEAST_GAIN_FIELD_NUMBER: _ClassVar[int]
    mode: Mode
    half_life_steps: float
    window_steps: float
    every_steps: int
    cooldown_steps: int
    start_above: float
    stop_below: float
    min_gain: float
    max_moves_per_layer: int
    max_moves: int
    replan_gap: float
    horizon_steps: int
    moe_share: float
    node_bandwidth: float
    cross_node_bandwidth: float
    least_gain: float
    def __init__(self, mode: _Optional[_Union[Mode, str]] = ..., half_life_steps: _Optional[float] = ..., window_steps: _Optional[float] = ..., every_steps: _Optional[int] = ..., cooldown_steps: _Optional[int] = ..., start_above: _Optional[float] = ..., stop_below: _Optional[float] = ..., min_gain: _Optional[float] = ..., max_moves_per_layer: _Optional[int] = ..., max_moves: _Optional[int] = ..., replan_gap: _Optional[float] = ..., horizon_steps: _Optional[int] = ..., moe_share: _Optional[float] = ..., node_bandwidth: _Optional[float] = ..., cross_node_bandwidth: _Optional[float] = ..., least_gain: _Optional[float] = ...) -> None: ...

class DeploymentSpec(_message.Message):
    __slots__ = ("name", "model", "first_layer", "num_layers", "num_experts", "topology", "switched_by")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    FIRST_LAYER_FIELD_NUMBER: _ClassVar[int]
    NUM_LAYERS_FIELD_NUMBER: _ClassVar[int]
    NUM_EXPERTS_FIELD_NUMBER: _ClassVar[int]
    TOPOLOGY_FIELD_NUMBER: _ClassVar[int]
    SWITCHED_BY_FIELD_NUMBER: _ClassVar[int]
    name: str
    model: str
    first_layer: int
    num_layers: int
    num_experts: int
    topology: _topology_pb2.Topology
    switched_by: SwitchedBy
    def __init__(self, name: _Optional[str] = ..., model: _Optional[str] = ..., first_layer: _Optional[int] = ..., num_layers: _Optional[int] = ..., num_experts: _Optional[int] = ..., topology: _Optional[_Union[_topology_pb2.Topology, _Mapping]] = ..., switched_by: _Optional[_Union[SwitchedBy, str]] = ...) -> None: ...

class Imbalance(_message.Message):
    __slots__ = ("worst", "median", "mean", "layers")
    WORST_FIELD_NUMBER: _ClassVar[int]
    MEDIAN_FIELD_NUMBER: _ClassVar[int]
    MEAN_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    worst: float
    median: float
    mean: float
    layers: int
    def __init__(self, worst: _Optional[float] = ..., median: _Optional[float] = ..., mean: _Optional[float] = ..., layers: _Optional[int] = ...) -> None: ...

class BalanceStatus(_message.Message):
    __slots__ = ("predicted", "predicted_smoothed", "measured", "measured_smoothed", "shadow", "shadow_smoothed", "shadow_moves")
    PREDICTED_FIELD_NUMBER: _ClassVar[int]
    PREDICTED_SMOOTHED_FIELD_NUMBER: _ClassVar[int]
    MEASURED_FIELD_NUMBER: _ClassVar[int]
    MEASURED_SMOOTHED_FIELD_NUMBER: _ClassVar[int]
    SHADOW_FIELD_NUMBER: _ClassVar[int]
    SHADOW_SMOOTHED_FIELD_NUMBER: _ClassVar[int]
    SHADOW_MOVES_FIELD_NUMBER: _ClassVar[int]
    predicted: Imbalance
    predicted_smoothed: Imbalance
    measured: Imbalance
    measured_smoothed: Imbalance
    shadow: Imbalance
    shadow_smoothed: Imbalance
    shadow_moves: int
    def __init__(self, predicted: _Optional[_Union[Imbalance, _Mapping]] = ..., predicted_smoothed: _Optional[_Union[Imbalance, _Mapping]] = ..., measured: _Optional[_Union[Imbalance, _Mapping]] = ..., measured_smoothed: _Optional[_Union[Imbalance, _Mapping]] = ..., shadow: _Optional[_Union[Imbalance, _Mapping]] = ..., shadow_smoothed: _Optional[_Union[Imbalance, _Mapping]] = ..., shadow_moves: _Optional[int] = ...) -> None: ...

class WorkerStatus(_message.Message):
    __slots__ = ("worker", "gpus", "connected", "incarnation", "last_step", "report_age_seconds")
    WORKER_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    LAST_STEP_FIELD_NUMBER: _ClassVar[int]
    REPORT_AGE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    worker: str
    gpus: _containers.RepeatedScalarFieldContainer[int]
    connected: bool
    incarnation: int
    last_step: int
    report_age_seconds: float
    def __init__(self, worker: _Optional[str] = ..., gpus: _Optional[_Iterable[int]] = ..., connected: bool = ..., incarnation: _Optional[int] = ..., last_step: _Optional[int] = ..., report_age_seconds: _Optional[float] = ...) -> None: ...

class RollbackPoint(_message.Message):
    __slots__ = ("version", "since", "until", "cause", "imbalance")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    IMBALANCE_FIELD_NUMBER: _ClassVar[int]
    version: _switch_pb2.Version
    since: _timestamp_pb2.Timestamp
    until: _timestamp_pb2.Timestamp
    cause: PlacementCause
    imbalance: float
    def __init__(self, version: _Optional[_Union[_switch_pb2.Version, _Mapping]] = ..., since: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., until: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., cause: _Optional[_Union[PlacementCause, str]] = ..., imbalance: _Optional[float] = ...) -> None: ...

class DeploymentStatus(_message.Message):
    __slots__ = ("in_force", "digest", "in_force_seconds", "phase", "switching_to", "not_ready", "paused_reason", "pinned_digest", "workers_connected", "workers_absent", "step", "estimate_age_seconds", "balance", "last_decision", "decisions", "past", "workers", "last_judged", "points", "unused_seconds", "sessions_refused", "last_refusal")
    class DecisionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    IN_FORCE_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    IN_FORCE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    SWITCHING_TO_FIELD_NUMBER: _ClassVar[int]
    NOT_READY_FIELD_NUMBER: _ClassVar[int]
    PAUSED_REASON_FIELD_NUMBER: _ClassVar[int]
    PINNED_DIGEST_FIELD_NUMBER: _ClassVar[int]
    WORKERS_CONNECTED_FIELD_NUMBER: _ClassVar[int]
    WORKERS_ABSENT_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    ESTIMATE_AGE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    BALANCE_FIELD_NUMBER: _ClassVar[int]
    LAST_DECISION_FIELD_NUMBER: _ClassVar[int]
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    PAST_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    LAST_JUDGED_FIELD_NUMBER: _ClassVar[int]
    POINTS_FIELD_NUMBER: _ClassVar[int]
    UNUSED_SECONDS_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_REFUSED_FIELD_NUMBER: _ClassVar[int]
    LAST_REFUSAL_FIELD_NUMBER: _ClassVar[int]
    in_force: _switch_pb2.Version
    digest: bytes
    in_force_seconds: float
    phase: str
    switching_to: _switch_pb2.Version
    not_ready: str
    paused_reason: str
    pinned_digest: bytes
    workers_connected: int
    workers_absent: int
    step: int
    estimate_age_seconds: float
    balance: BalanceStatus
    last_decision: Decision
    decisions: _containers.ScalarMap[str, int]
    past: _containers.RepeatedCompositeFieldContainer[_switch_pb2.Version]
    workers: _containers.RepeatedCompositeFieldContainer[WorkerStatus]
    last_judged: Judgement
    points: _containers.RepeatedCompositeFieldContainer[RollbackPoint]
    unused_seconds: float
    sessions_refused: int
    last_refusal: str
    def __init__(self, in_force: _Optional[_Union[_switch_pb2.Version, _Mapping]] = ..., digest: _Optional[bytes] = ..., in_force_seconds: _Optional[float] = ..., phase: _Optional[str] = ..., switching_to: _Optional[_Union[_switch_pb2.Version, _Mapping]] = ..., not_ready: _Optional[str] = ..., paused_reason: _Optional[str] = ..., pinned_digest: _Optional[bytes] = ..., workers_connected: _Optional[int] = ..., workers_absent: _Optional[int] = ..., step: _Optional[int] = ..., estimate_age_seconds: _Optional[float] = ..., balance: _Optional[_Union[BalanceStatus, _Mapping]] = ..., last_decision: _Optional[_Union[Decision, _Mapping]] = ..., decisions: _Optional[_Mapping[str, int]] = ..., past: _Optional[_Iterable[_Union[_switch_pb2.Version, _Mapping]]] = ..., workers: _Optional[_Iterable[_Union[WorkerStatus, _Mapping]]] = ..., last_judged: _Optional[_Union[Judgement, _Mapping]] = ..., points: _Optional[_Iterable[_Union[RollbackPoint, _Mapping]]] = ..., unused_seconds: _Optional[float] = ..., sessions_refused: _Optional[int] = ..., last_refusal: _Optional[str] = ...) -> None: ...

class Deployment(_message.Message):
    __slots__ = ("spec", "policy", "status")
    SPEC_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    spec: DeploymentSpec
    policy: Policy
    status: DeploymentStatus
    def __init__(self, spec: _Optional[_Union[DeploymentSpec, _Mapping]] = ..., policy: _Optional[_Union[Policy, _Mapping]] = ..., status: _Optional[_Union[DeploymentStatus, _Mapping]] = ...) -> None: ...

class Decision(_message.Message):
    __slots__ = ("time", "step", "reason", "detail", "mode", "imbalance_before", "imbalance_after", "moves", "move_seconds", "times", "certainty", "judged")
    TIME_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    IMBALANCE_BEFORE_FIELD_NUMBER: _ClassVar[int]
    IMBALANCE_AFTER_FIELD_NUMBER: _ClassVar[int]
    MOVES_FIELD_NUMBER: _ClassVar[int]
    MOVE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    TIMES_FIELD_NUMBER: _ClassVar[int]
    CERTAINTY_FIELD_NUMBER: _ClassVar[int]
    JUDGED_FIELD_NUMBER: _ClassVar[int]
    time: _timestamp_pb2.Timestamp
    step: int
    reason: Reason
    detail: str
    mode: Mode
    imbalance_before: float
    imbalance_after: float
    moves: int
    move_seconds: float
    times: int
    certainty: Certainty
    judged: Judgement
    def __init__(self, time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., step: _Optional[int] = ..., reason: _Optional[_Union[Reason, str]] = ..., detail: _Optional[str] = ..., mode: _Optional[_Union[Mode, str]] = ..., imbalance_before: _Optional[float] = ..., imbalance_after: _Optional[float] = ..., moves: _Optional[int] = ..., move_seconds: _Optional[float] = ..., times: _Optional[int] = ..., certainty: _Optional[_Union[Certainty, _Mapping]] = ..., judged: _Optional[_Union[Judgement, _Mapping]] = ...) -> None: ...

class Certainty(_message.Message):
    __slots__ = ("tokens", "overdispersion", "noise", "sigma", "distrust")
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    OVERDISPERSION_FIELD_NUMBER: _ClassVar[int]
    NOISE_FIELD_NUMBER: _ClassVar[int]
    SIGMA_FIELD_NUMBER: _ClassVar[int]
    DISTRUST_FIELD_NUMBER: _ClassVar[int]
    tokens: float
    overdispersion: float
    noise: float
    sigma: float
    distrust: float
    def __init__(self, tokens: _Optional[float] = ..., overdispersion: _Optional[float] = ..., noise: _Optional[float] = ..., sigma: _Optional[float] = ..., distrust: _Optional[float] = ...) -> None: ...

class Judgement(_message.Message):
    __slots__ = ("step", "steps", "promised", "realised")
    STEP_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    PROMISED_FIELD_NUMBER: _ClassVar[int]
    REALISED_FIELD_NUMBER: _ClassVar[int]
    step: int
    steps: int
    promised: float
    realised: float
    def __init__(self, step: _Optional[int] = ..., steps: _Optional[int] = ..., promised: _Optional[float] = ..., realised: _Optional[float] = ...) -> None: ...

class CreateDeploymentRequest(_message.Message):
    __slots__ = ("spec", "policy")
    SPEC_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    spec: DeploymentSpec
    policy: Policy
    def __init__(self, spec: _Optional[_Union[DeploymentSpec, _Mapping]] = ..., policy: _Optional[_Union[Policy, _Mapping]] = ...) -> None: ...

class CreateDeploymentResponse(_message.Message):
    __slots__ = ("deployment",)
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    deployment: Deployment
    def __init__(self, deployment: _Optional[_Union[Deployment, _Mapping]] = ...) -> None: ...

class GetDeploymentRequest(_message.Message):
    __slots__ = ("deployment",)
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    deployment: str
    def __init__(self, deployment: _Optional[str] = ...) -> None: ...

class GetDeploymentResponse(_message.Message):
    __slots__ = ("deployment",)
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    deployment: Deployment
    def __init__(self, deployment: _Optional[_Union[Deployment, _Mapping]] = ...) -> None: ...

class ListDeploymentsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListDeploymentsResponse(_message.Message):
    __slots__ = ("deployments",)
    DEPLOYMENTS_FIELD_NUMBER: _ClassVar[int]
    deployments: _containers.RepeatedCompositeFieldContainer[Deployment]
    def __init__(self, deployments: _Optional[_Iterable[_Union[Deployment, _Mapping]]] = ...) -> None: ...

class UpdatePolicyRequest(_message.Message):
    __slots__ = ("deployment", "policy")
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    deployment: str
    policy: Policy
    def __init__(self, deployment: _Optional[str] = ..., policy: _Optional[_Union[Policy, _Mapping]] = ...) -> None: ...

class UpdatePolicyResponse(_message.Message):
    __slots__ = ("policy",)
    POLICY_FIELD_NUMBER: _ClassVar[int]
    policy: Policy
    def __init__(self, policy: _Optional[_Union[Policy, _Mapping]] = ...) -> None: ...

class DeleteDeploymentRequest(_message.Message):
    __slots__ = ("deployment",)
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    deployment: str
    def __init__(self, deployment: _Optional[str] = ...) -> None: ...

class DeleteDeploymentResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PinRequest(_message.Message):
    __slots__ = ("deployment", "placement")
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    deployment: str
    placement: _placement_pb2.Placement
    def __init__(self, deployment: _Optional[str] = ..., placement: _Optional[_Union[_placement_pb2.Placement, _Mapping]] = ...) -> None: ...

class PinResponse(_message.Message):
    __slots__ = ("in_force", "target")
    IN_FORCE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    in_force: _switch_pb2.Version
    target: _placement_pb2.Placement
    def __init__(self, in_force: _Optional[_Union[_switch_pb2.Version, _Mapping]] = ..., target: _Optional[_Union[_placement_pb2.Placement, _Mapping]] = ...) -> None: ...

class UnpinRequest(_message.Message):
    __slots__ = ("deployment",)
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    deployment: str
    def __init__(self, deployment: _Optional[str] = ...) -> None: ...

class UnpinResponse(_message.Message):
    __slots__ = ("previous_digest",)
    PREVIOUS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    previous_digest: bytes
    def __init__(self, previous_digest: _Optional[bytes] = ...) -> None: ...

class RollBackRequest(_message.Message):
    __slots__ = ("deployment", "version")
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    deployment: str
    version: _switch_pb2.Version
    def __init__(self, deployment: _Optional[str] = ..., version: _Optional[_Union[_switch_pb2.Version, _Mapping]] = ...) -> None: ...

class RollBackResponse(_message.Message):
    __slots__ = ("in_force", "target")
    IN_FORCE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    in_force: _switch_pb2.Version
    target: _placement_pb2.Placement
    def __init__(self, in_force: _Optional[_Union[_switch_pb2.Version, _Mapping]] = ..., target: _Optional[_Union[_placement_pb2.Placement, _Mapping]] = ...) -> None: ...

class GetPlacementRequest(_message.Message):
    __slots__ = ("deployment", "version")
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    deployment: str
    version: _switch_pb2.Version
    def __init__(self, deployment: _Optional[str] = ..., version: _Optional[_Union[_switch_pb2.Version, _Mapping]] = ...) -> None: ...

class GetPlacementResponse(_message.Message):
    __slots__ = ("version", "placement", "topology", "num_experts")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    TOPOLOGY_FIELD_NUMBER: _ClassVar[int]
    NUM_EXPERTS_FIELD_NUMBER: _ClassVar[int]
    version: _switch_pb2.Version
    placement: _placement_pb2.Placement
    topology: _topology_pb2.Topology
    num_experts: int
    def __init__(self, version: _Optional[_Union[_switch_pb2.Version, _Mapping]] = ..., placement: _Optional[_Union[_placement_pb2.Placement, _Mapping]] = ..., topology: _Optional[_Union[_topology_pb2.Topology, _Mapping]] = ..., num_experts: _Optional[int] = ...) -> None: ...

class WatchPlacementRequest(_message.Message):
    __slots__ = ("deployment", "known")
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    deployment: str
    known: _switch_pb2.Version
    def __init__(self, deployment: _Optional[str] = ..., known: _Optional[_Union[_switch_pb2.Version, _Mapping]] = ...) -> None: ...

class WatchPlacementResponse(_message.Message):
    __slots__ = ("version", "placement", "topology", "num_experts")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    TOPOLOGY_FIELD_NUMBER: _ClassVar[int]
    NUM_EXPERTS_FIELD_NUMBER: _ClassVar[int]
    version: _switch_pb2.Version
    placement: _placement_pb2.Placement
    topology: _topology_pb2.Topology
    num_experts: int
    def __init__(self, version: _Optional[_Union[_switch_pb2.Version, _Mapping]] = ..., placement: _Optional[_Union[_placement_pb2.Placement, _Mapping]] = ..., topology: _Optional[_Union[_topology_pb2.Topology, _Mapping]] = ..., num_experts: _Optional[int] = ...) -> None: ...

class ListDecisionsRequest(_message.Message):
    __slots__ = ("deployment", "limit")
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    deployment: str
    limit: int
    def __init__(self, deployment: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class ListDecisionsResponse(_message.Message):
    __slots__ = ("decisions",)
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    decisions: _containers.RepeatedCompositeFieldContainer[Decision]
    def __init__(self, decisions: _Optional[_Iterable[_Union[Decision, _Mapping]]] = ...) -> None: ...

class Operation(_message.Message):
    __slots__ = ("time", "kind", "peer", "before", "after")
    TIME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    time: _timestamp_pb2.Timestamp
    kind: OperationKind
    peer: str
    before: str
    after: str
    def __init__(self, time: _Optional[_Union[_timestamp_pb2.Timestamp, _Mapping]] = ..., kind: _Optional[_Union[OperationKind, str]] = ..., peer: _Optional[str] = ..., before: _Optional[str] = ..., after: _Optional[str] = ...) -> None: ...

class ListOperationsRequest(_message.Message):
    __slots__ = ("deployment", "limit")
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    deployment: str
    limit: int
    def __init__(self, deployment: _Optional[str] = ..., limit: _Optional[int] = ...) -> None: ...

class ListOperationsResponse(_message.Message):
    __slots__ = ("operations",)
    OPERATIONS_FIELD_NUMBER: _ClassVar[int]
    operations: _containers.RepeatedCompositeFieldContainer[Operation]
    def __init__(self, operations: _Optional[_Iterable[_Union[Operation, _Mapping]]] = ...) -> None: ...

class GetServerStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetServerStatusResponse(_message.Message):
    __slots__ = ("version", "term", "uptime_seconds", "store_failure", "deployments", "sessions")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    UPTIME_SECONDS_FIELD_NUMBER: _ClassVar[int]
    STORE_FAILURE_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENTS_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    version: str
    term: int
    uptime_seconds: float
    store_failure: str
    deployments: int
    sessions: int
    def __init__(self, version: _Optional[str] = ..., term: _Optional[int] = ..., uptime_seconds: _Optional[float] = ..., store_failure: _Optional[str] = ..., deployments: _Optional[int] = ..., sessions: _Optional[int] = ...) -> None: ...

class TriggerRequest(_message.Message):
    __slots__ = ("deployment", "placement", "budget", "wait_seconds")
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    WAIT_SECONDS_FIELD_NUMBER: _ClassVar[int]
    deployment: str
    placement: _placement_pb2.Placement
    budget: _placement_pb2.MoveBudget
    wait_seconds: float
    def __init__(self, deployment: _Optional[str] = ..., placement: _Optional[_Union[_placement_pb2.Placement, _Mapping]] = ..., budget: _Optional[_Union[_placement_pb2.MoveBudget, _Mapping]] = ..., wait_seconds: _Optional[float] = ...) -> None: ...

class TriggerResponse(_message.Message):
    __slots__ = ("in_force", "target")
    IN_FORCE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    in_force: _switch_pb2.Version
    target: _placement_pb2.Placement
    def __init__(self, in_force: _Optional[_Union[_switch_pb2.Version, _Mapping]] = ..., target: _Optional[_Union[_placement_pb2.Placement, _Mapping]] = ...) -> None: ...

class PauseRequest(_message.Message):
    __slots__ = ("deployment", "reason")
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    deployment: str
    reason: str
    def __init__(self, deployment: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class PauseResponse(_message.Message):
    __slots__ = ("previous_reason",)
    PREVIOUS_REASON_FIELD_NUMBER: _ClassVar[int]
    previous_reason: str
    def __init__(self, previous_reason: _Optional[str] = ...) -> None: ...

class ForgetLoadRequest(_message.Message):
    __slots__ = ("deployment",)
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    deployment: str
    def __init__(self, deployment: _Optional[str] = ...) -> None: ...

class ForgetLoadResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ResumeRequest(_message.Message):
    __slots__ = ("deployment",)
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    deployment: str
    def __init__(self, deployment: _Optional[str] = ...) -> None: ...

class ResumeResponse(_message.Message):
    __slots__ = ("previous_reason",)
    PREVIOUS_REASON_FIELD_NUMBER: _ClassVar[int]
    previous_reason: str
    def __init__(self, previous_reason: _Optional[str] = ...) -> None: ...
