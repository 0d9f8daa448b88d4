from trimtab.v1 import error_pb2 as _error_pb2
from trimtab.v1 import placement_pb2 as _placement_pb2
from trimtab.v1 import tensor_pb2 as _tensor_pb2
from trimtab.v1 import topology_pb2 as _topology_pb2
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Mapping as _Mapping, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Effort(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EFFORT_UNSPECIFIED: _ClassVar[Effort]
    EFFORT_FAST: _ClassVar[Effort]
    EFFORT_BALANCED: _ClassVar[Effort]

class Objective(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OBJECTIVE_UNSPECIFIED: _ClassVar[Objective]
    OBJECTIVE_L2: _ClassVar[Objective]
    OBJECTIVE_RANGE: _ClassVar[Objective]
EFFORT_UNSPECIFIED: Effort
EFFORT_FAST: Effort
EFFORT_BALANCED: Effort
OBJECTIVE_UNSPECIFIED: Objective
OBJECTIVE_L2: Objective
OBJECTIVE_RANGE: Objective

class SolverOptions(_message.Message):
    __slots__ = ("effort", "seed", "objective", "top_k", "max_iterations", "restarts")
    EFFORT_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    OBJECTIVE_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    MAX_ITERATIONS_FIELD_NUMBER: _ClassVar[int]
    RESTARTS_FIELD_NUMBER: _ClassVar[int]
    effort: Effort
    seed: int
    objective: Objective
    top_k: int
    max_iterations: int
    restarts: int
    def __init__(self, effort: _Optional[_Union[Effort, str]] = ..., seed: _Optional[int] = ..., objective: _Optional[_Union[Objective, str]] = ..., top_k: _Optional[int] = ..., max_iterations: _Optional[int] = ..., restarts: _Optional[int] = ...) -> None: ...

class PackRequest(_message.Message):
    __slots__ = ("weight", "num_packs", "item_group", "options")
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    NUM_PACKS_FIELD_NUMBER: _ClassVar[int]
    ITEM_GROUP_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    weight: _tensor_pb2.Tensor
    num_packs: int
    item_group: _tensor_pb2.Tensor
    options: SolverOptions
    def __init__(self, weight: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., num_packs: _Optional[int] = ..., item_group: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., options: _Optional[_Union[SolverOptions, _Mapping]] = ...) -> None: ...

class PackResponse(_message.Message):
    __slots__ = ("pack_index", "rank_in_pack")
    PACK_INDEX_FIELD_NUMBER: _ClassVar[int]
    RANK_IN_PACK_FIELD_NUMBER: _ClassVar[int]
    pack_index: _tensor_pb2.Tensor
    rank_in_pack: _tensor_pb2.Tensor
    def __init__(self, pack_index: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., rank_in_pack: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ...) -> None: ...

class PlaceRequest(_message.Message):
    __slots__ = ("load", "topology", "current", "budget", "options")
    LOAD_FIELD_NUMBER: _ClassVar[int]
    TOPOLOGY_FIELD_NUMBER: _ClassVar[int]
    CURRENT_FIELD_NUMBER: _ClassVar[int]
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    load: _tensor_pb2.Tensor
    topology: _topology_pb2.Topology
    current: _placement_pb2.Placement
    budget: _placement_pb2.MoveBudget
    options: SolverOptions
    def __init__(self, load: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ..., topology: _Optional[_Union[_topology_pb2.Topology, _Mapping]] = ..., current: _Optional[_Union[_placement_pb2.Placement, _Mapping]] = ..., budget: _Optional[_Union[_placement_pb2.MoveBudget, _Mapping]] = ..., options: _Optional[_Union[SolverOptions, _Mapping]] = ...) -> None: ...

class PlaceResponse(_message.Message):
    __slots__ = ("placement", "moves", "before", "after")
    PLACEMENT_FIELD_NUMBER: _ClassVar[int]
    MOVES_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    placement: _placement_pb2.Placement
    moves: _placement_pb2.Moves
    before: _placement_pb2.Balance
    after: _placement_pb2.Balance
    def __init__(self, placement: _Optional[_Union[_placement_pb2.Placement, _Mapping]] = ..., moves: _Optional[_Union[_placement_pb2.Moves, _Mapping]] = ..., before: _Optional[_Union[_placement_pb2.Balance, _Mapping]] = ..., after: _Optional[_Union[_placement_pb2.Balance, _Mapping]] = ...) -> None: ...

class PlaceStreamConfig(_message.Message):
    __slots__ = ("topology", "current", "budget", "options")
    TOPOLOGY_FIELD_NUMBER: _ClassVar[int]
    CURRENT_FIELD_NUMBER: _ClassVar[int]
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    topology: _topology_pb2.Topology
    current: _placement_pb2.Placement
    budget: _placement_pb2.MoveBudget
    options: SolverOptions
    def __init__(self, topology: _Optional[_Union[_topology_pb2.Topology, _Mapping]] = ..., current: _Optional[_Union[_placement_pb2.Placement, _Mapping]] = ..., budget: _Optional[_Union[_placement_pb2.MoveBudget, _Mapping]] = ..., options: _Optional[_Union[SolverOptions, _Mapping]] = ...) -> None: ...

class PlaceStreamLoad(_message.Message):
    __slots__ = ("id", "load")
    ID_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    id: int
    load: _tensor_pb2.Tensor
    def __init__(self, id: _Optional[int] = ..., load: _Optional[_Union[_tensor_pb2.Tensor, _Mapping]] = ...) -> None: ...

class PlaceStreamRequest(_message.Message):
    __slots__ = ("config", "load")
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    config: PlaceStreamConfig
    load: PlaceStreamLoad
    def __init__(self, config: _Optional[_Union[PlaceStreamConfig, _Mapping]] = ..., load: _Optional[_Union[PlaceStreamLoad, _Mapping]] = ...) -> None: ...

class PlaceStreamResponse(_message.Message):
    __slots__ = ("id", "placed", "error")
    ID_FIELD_NUMBER: _ClassVar[int]
    PLACED_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    id: int
    placed: PlaceResponse
    error: _error_pb2.Error
    def __init__(self, id: _Optional[int] = ..., placed: _Optional[_Union[PlaceResponse, _Mapping]] = ..., error: _Optional[_Union[_error_pb2.Error, _Mapping]] = ...) -> None: ...
