from trimtab.v1 import tensor_pb2 as _tensor_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Placement(_message.Message):
    __slots__ = ("phy2log", "digest")
    PHY2LOG_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    phy2log: _tensor_pb2.Tensor
    digest: bytes
    def __init__(self, phy2log: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., digest: _Optional[bytes] = ...) -> None: ...

class Moves(_message.Message):
    __slots__ = ("layer_slot_expert", "source_gpus")
    LAYER_SLOT_EXPERT_FIELD_NUMBER: _ClassVar[int]
    SOURCE_GPUS_FIELD_NUMBER: _ClassVar[int]
    layer_slot_expert: _tensor_pb2.Tensor
    source_gpus: _tensor_pb2.Tensor
    def __init__(self, layer_slot_expert: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., source_gpus: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ...) -> None: ...

class Balance(_message.Message):
    __slots__ = ("gpu_load", "imbalance", "bound")
    GPU_LOAD_FIELD_NUMBER: _ClassVar[int]
    IMBALANCE_FIELD_NUMBER: _ClassVar[int]
    BOUND_FIELD_NUMBER: _ClassVar[int]
    gpu_load: _tensor_pb2.Tensor
    imbalance: _tensor_pb2.Tensor
    bound: _tensor_pb2.Tensor
    def __init__(self, gpu_load: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., imbalance: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., bound: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ...) -> None: ...

class MoveBudget(_message.Message):
    __slots__ = ("max_moves_per_layer", "max_moves", "min_gain", "cross_node_cost")
    MAX_MOVES_PER_LAYER_FIELD_NUMBER: _ClassVar[int]
    MAX_MOVES_FIELD_NUMBER: _ClassVar[int]
    MIN_GAIN_FIELD_NUMBER: _ClassVar[int]
    CROSS_NODE_COST_FIELD_NUMBER: _ClassVar[int]
    max_moves_per_layer: int
    max_moves: int
    min_gain: float
    cross_node_cost: float
    def __init__(self, max_moves_per_layer: _Optional[int] = ..., max_moves: _Optional[int] = ..., min_gain: _Optional[float] = ..., cross_node_cost: _Optional[float] = ...) -> None: ...
