from trimtab.v1 import placement_pb2 as _placement_pb2
from trimtab.v1 import tensor_pb2 as _tensor_pb2
from trimtab.v1 import topology_pb2 as _topology_pb2
from trimtab.v1alpha1 import deployment_service_pb2 as _deployment_service_pb2
from trimtab.v1alpha1 import session_service_pb2 as _session_service_pb2
from trimtab.v1alpha1 import switch_pb2 as _switch_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Split(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SPLIT_UNSPECIFIED: _ClassVar[Split]
    SPLIT_EVEN: _ClassVar[Split]
    SPLIT_BEST: _ClassVar[Split]
SPLIT_UNSPECIFIED: Split
SPLIT_EVEN: Split
SPLIT_BEST: Split

class RebalanceRequest(_message.Message):
    __slots__ = ("deployment", "incarnation", "topology", "num_experts", "placement", "report", "step_seconds", "bytes_per_expert", "model", "first_layer", "observes", "split", "slot_counts")
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    TOPOLOGY_FIELD_NUMBER: _ClassVar[int]
    NUM_EXPERTS_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    STEP_SECONDS_FIELD_NUMBER: _ClassVar[int]
    BYTES_PER_EXPERT_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    FIRST_LAYER_FIELD_NUMBER: _ClassVar[int]
    OBSERVES_FIELD_NUMBER: _ClassVar[int]
    SPLIT_FIELD_NUMBER: _ClassVar[int]
    SLOT_COUNTS_FIELD_NUMBER: _ClassVar[int]
    deployment: str
    incarnation: int
    topology: _topology_pb2.Topology
    num_experts: int
    placement: _placement_pb2.Placement
    report: _session_service_pb2.Report
    step_seconds: float
    bytes_per_expert: int
    model: str
    first_layer: int
    observes: bool
    split: Split
    slot_counts: _tensor_pb2.Tensor
    def __init__(self, deployment: _Optional[str] = ..., incarnation: _Optional[int] = ..., topology: _Optional[_Union[_topology_pb2.Topology, _Mapping]] = ..., num_experts: _Optional[int] = ..., placement: _Optional[_Union[_placement_pb2.Placement, _Mapping]] = ..., report: _Optional[_Union[_session_service_pb2.Report, _Mapping]] = ..., step_seconds: _Optional[float] = ..., bytes_per_expert: _Optional[int] = ..., model: _Optional[str] = ..., first_layer: _Optional[int] = ..., observes: bool = ..., split: _Optional[_Union[Split, str]] = ..., slot_counts: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ...) -> None: ...

class RebalanceResponse(_message.Message):
    __slots__ = ("in_force", "version", "placement", "moves", "decision", "kept_because")
    IN_FORCE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    MOVES_FIELD_NUMBER: _ClassVar[int]
    DECISION_FIELD_NUMBER: _ClassVar[int]
    KEPT_BECAUSE_FIELD_NUMBER: _ClassVar[int]
    in_force: _switch_pb2.Version
    version: _switch_pb2.Version
    placement: _placement_pb2.Placement
    moves: int
    decision: _deployment_service_pb2.Decision
    kept_because: str
    def __init__(self, in_force: _Optional[_Union[_switch_pb2.Version, _Mapping]] = ..., version: _Optional[_Union[_switch_pb2.Version, _Mapping]] = ..., placement: _Optional[_Union[_placement_pb2.Placement, _Mapping]] = ..., moves: _Optional[int] = ..., decision: _Optional[_Union[_deployment_service_pb2.Decision, _Mapping]] = ..., kept_because: _Optional[str] = ...) -> None: ...

class ReportLayersRequest(_message.Message):
    __slots__ = ("deployment", "incarnation", "layers", "phy2log")
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    PHY2LOG_FIELD_NUMBER: _ClassVar[int]
    deployment: str
    incarnation: int
    layers: _tensor_pb2.Tensor
    phy2log: _tensor_pb2.Tensor
    def __init__(self, deployment: _Optional[str] = ..., incarnation: _Optional[int] = ..., layers: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., phy2log: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ...) -> None: ...

class ReportLayersResponse(_message.Message):
    __slots__ = ("in_force",)
    IN_FORCE_FIELD_NUMBER: _ClassVar[int]
    in_force: _switch_pb2.Version
    def __init__(self, in_force: _Optional[_Union[_switch_pb2.Version, _Mapping]] = ...) -> None: ...
