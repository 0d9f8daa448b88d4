from trimtab.v1 import placement_pb2 as _placement_pb2
from trimtab.v1 import tensor_pb2 as _tensor_pb2
from trimtab.v1 import topology_pb2 as _topology_pb2
from trimtab.v1alpha1 import switch_pb2 as _switch_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Iterable as _Iterable, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Scope(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SCOPE_UNSPECIFIED: _ClassVar[Scope]
    SCOPE_SOURCE: _ClassVar[Scope]
    SCOPE_LOCAL: _ClassVar[Scope]
    SCOPE_GLOBAL: _ClassVar[Scope]

class Transfer(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TRANSFER_UNSPECIFIED: _ClassVar[Transfer]
    TRANSFER_PULL: _ClassVar[Transfer]
    TRANSFER_COLLECTIVE: _ClassVar[Transfer]
SCOPE_UNSPECIFIED: Scope
SCOPE_SOURCE: Scope
SCOPE_LOCAL: Scope
SCOPE_GLOBAL: Scope
TRANSFER_UNSPECIFIED: Transfer
TRANSFER_PULL: Transfer
TRANSFER_COLLECTIVE: Transfer

class SessionRequest(_message.Message):
    __slots__ = ("hello", "report", "accepted", "prepared", "refused", "discarded", "applied", "goodbye")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    REPORT_FIELD_NUMBER: _ClassVar[int]
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    PREPARED_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    DISCARDED_FIELD_NUMBER: _ClassVar[int]
    APPLIED_FIELD_NUMBER: _ClassVar[int]
    GOODBYE_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    report: Report
    accepted: _switch_pb2.Accepted
    prepared: _switch_pb2.Prepared
    refused: _switch_pb2.Refused
    discarded: _switch_pb2.Discarded
    applied: _switch_pb2.Applied
    goodbye: Goodbye
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., report: _Optional[_Union[Report, _Mapping]] = ..., accepted: _Optional[_Union[_switch_pb2.Accepted, _Mapping]] = ..., prepared: _Optional[_Union[_switch_pb2.Prepared, _Mapping]] = ..., refused: _Optional[_Union[_switch_pb2.Refused, _Mapping]] = ..., discarded: _Optional[_Union[_switch_pb2.Discarded, _Mapping]] = ..., applied: _Optional[_Union[_switch_pb2.Applied, _Mapping]] = ..., goodbye: _Optional[_Union[Goodbye, _Mapping]] = ...) -> None: ...

class SessionResponse(_message.Message):
    __slots__ = ("term", "directive", "report_ack", "welcome", "offer", "commit", "abort", "drain")
    TERM_FIELD_NUMBER: _ClassVar[int]
    DIRECTIVE_FIELD_NUMBER: _ClassVar[int]
    REPORT_ACK_FIELD_NUMBER: _ClassVar[int]
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    OFFER_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    ABORT_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    term: int
    directive: Directive
    report_ack: ReportAck
    welcome: _switch_pb2.Welcome
    offer: _switch_pb2.Offer
    commit: _switch_pb2.Commit
    abort: _switch_pb2.Abort
    drain: Drain
    def __init__(self, term: _Optional[int] = ..., directive: _Optional[_Union[Directive, _Mapping]] = ..., report_ack: _Optional[_Union[ReportAck, _Mapping]] = ..., welcome: _Optional[_Union[_switch_pb2.Welcome, _Mapping]] = ..., offer: _Optional[_Union[_switch_pb2.Offer, _Mapping]] = ..., commit: _Optional[_Union[_switch_pb2.Commit, _Mapping]] = ..., abort: _Optional[_Union[_switch_pb2.Abort, _Mapping]] = ..., drain: _Optional[_Union[Drain, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("deployment", "group_id", "worker", "incarnation", "stream", "gpus", "topology", "num_experts", "placement", "in_force", "flipped_at", "held", "scope", "transfer", "staging_slots", "max_layers_per_switch", "bytes_per_expert", "term", "epoch", "generation", "model", "first_layer")
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    GROUP_ID_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    STREAM_FIELD_NUMBER: _ClassVar[int]
    GPUS_FIELD_NUMBER: _ClassVar[int]
    TOPOLOGY_FIELD_NUMBER: _ClassVar[int]
    NUM_EXPERTS_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    IN_FORCE_FIELD_NUMBER: _ClassVar[int]
    FLIPPED_AT_FIELD_NUMBER: _ClassVar[int]
    HELD_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    TRANSFER_FIELD_NUMBER: _ClassVar[int]
    STAGING_SLOTS_FIELD_NUMBER: _ClassVar[int]
    MAX_LAYERS_PER_SWITCH_FIELD_NUMBER: _ClassVar[int]
    BYTES_PER_EXPERT_FIELD_NUMBER: _ClassVar[int]
    TERM_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    FIRST_LAYER_FIELD_NUMBER: _ClassVar[int]
    deployment: str
    group_id: str
    worker: str
    incarnation: int
    stream: int
    gpus: _containers.RepeatedScalarFieldContainer[int]
    topology: _topology_pb2.Topology
    num_experts: int
    placement: _placement_pb2.Placement
    in_force: _switch_pb2.Version
    flipped_at: int
    held: _switch_pb2.Held
    scope: Scope
    transfer: Transfer
    staging_slots: int
    max_layers_per_switch: int
    bytes_per_expert: int
    term: int
    epoch: int
    generation: int
    model: str
    first_layer: int
    def __init__(self, deployment: _Optional[str] = ..., group_id: _Optional[str] = ..., worker: _Optional[str] = ..., incarnation: _Optional[int] = ..., stream: _Optional[int] = ..., gpus: _Optional[_Iterable[int]] = ..., topology: _Optional[_Union[_topology_pb2.Topology, _Mapping]] = ..., num_experts: _Optional[int] = ..., placement: _Optional[_Union[_placement_pb2.Placement, _Mapping]] = ..., in_force: _Optional[_Union[_switch_pb2.Version, _Mapping]] = ..., flipped_at: _Optional[int] = ..., held: _Optional[_Union[_switch_pb2.Held, _Mapping]] = ..., scope: _Optional[_Union[Scope, str]] = ..., transfer: _Optional[_Union[Transfer, str]] = ..., staging_slots: _Optional[int] = ..., max_layers_per_switch: _Optional[int] = ..., bytes_per_expert: _Optional[int] = ..., term: _Optional[int] = ..., epoch: _Optional[int] = ..., generation: _Optional[int] = ..., model: _Optional[str] = ..., first_layer: _Optional[int] = ...) -> None: ...

class Report(_message.Message):
    __slots__ = ("seq", "first_step", "last_step", "counts", "discard")
    SEQ_FIELD_NUMBER: _ClassVar[int]
    FIRST_STEP_FIELD_NUMBER: _ClassVar[int]
    LAST_STEP_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    DISCARD_FIELD_NUMBER: _ClassVar[int]
    seq: int
    first_step: int
    last_step: int
    counts: _tensor_pb2.Tensor
    discard: bool
    def __init__(self, seq: _Optional[int] = ..., first_step: _Optional[int] = ..., last_step: _Optional[int] = ..., counts: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., discard: bool = ...) -> None: ...

class Goodbye(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class Directive(_message.Message):
    __slots__ = ("report_interval_seconds", "lease_seconds")
    REPORT_INTERVAL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    LEASE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    report_interval_seconds: float
    lease_seconds: float
    def __init__(self, report_interval_seconds: _Optional[float] = ..., lease_seconds: _Optional[float] = ...) -> None: ...

class ReportAck(_message.Message):
    __slots__ = ("seq",)
    SEQ_FIELD_NUMBER: _ClassVar[int]
    seq: int
    def __init__(self, seq: _Optional[int] = ...) -> None: ...

class Drain(_message.Message):
    __slots__ = ("seconds",)
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    seconds: float
    def __init__(self, seconds: _Optional[float] = ...) -> None: ...
