from trimtab.v1 import placement_pb2 as _placement_pb2
from trimtab.v1alpha1 import switch_pb2 as _switch_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class TriggerRequest(_message.Message):
    __slots__ = ("deployment", "placement", "budget")
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    deployment: str
    placement: _placement_pb2.Placement
    budget: _placement_pb2.MoveBudget
    def __init__(self, deployment: _Optional[str] = ..., placement: _Optional[_Union[_placement_pb2.Placement, _Mapping]] = ..., budget: _Optional[_Union[_placement_pb2.MoveBudget, _Mapping]] = ...) -> None: ...

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
