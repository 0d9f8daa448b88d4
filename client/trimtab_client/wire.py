"""Conversion between the client's values and the messages of `trimtab.v1`.

All of it is pure. Protobuf types stop here and in `status`.
"""

from __future__ import annotations

import math
from enum import Enum
from typing import Any, SupportsFloat, SupportsIndex

import numpy as np
import numpy.typing as npt

from trimtab.v1 import placement_pb2, solver_service_pb2, tensor_pb2, topology_pb2
from trimtab.wire.v1 import standard_pb2
from trimtab_client.arrays import Matrix, as_amounts, as_indices
from trimtab_client.checks import integer, real
from trimtab_client.exceptions import InvalidArgumentError, ProtocolError, invalid
from trimtab_client.options import MoveBudget, SolverOptions, Topology
from trimtab_client.placement import Balance, Placement
from trimtab_client.results import Moves, PackResult, PlaceResult

_WIRE_TYPES: dict[Any, np.dtype[Any]] = {
    tensor_pb2.DATA_TYPE_FLOAT32: np.dtype("<f4"),
    tensor_pb2.DATA_TYPE_FLOAT64: np.dtype("<f8"),
    tensor_pb2.DATA_TYPE_INT32: np.dtype("<i4"),
    tensor_pb2.DATA_TYPE_INT64: np.dtype("<i8"),
}
_DATA_TYPES = {dtype: data_type for data_type, dtype in _WIRE_TYPES.items()}
_EFFORTS = {
    None: solver_service_pb2.EFFORT_UNSPECIFIED,
    "fast": solver_service_pb2.EFFORT_FAST,
    "balanced": solver_service_pb2.EFFORT_BALANCED,
}
_OBJECTIVES = {
    None: solver_service_pb2.OBJECTIVE_UNSPECIFIED,
    "l2": solver_service_pb2.OBJECTIVE_L2,
    "range": solver_service_pb2.OBJECTIVE_RANGE,
}
_UINT32_MAX = 2**32 - 1


class ServingStatus(Enum):
    """What a server says about itself or one of its services."""

    UNKNOWN = "UNKNOWN"
    SERVING = "SERVING"
    NOT_SERVING = "NOT_SERVING"
    SERVICE_UNKNOWN = "SERVICE_UNKNOWN"


_SERVING_STATUSES = {
    standard_pb2.HealthCheckResponse.SERVING_STATUS_SERVING: ServingStatus.SERVING,
    standard_pb2.HealthCheckResponse.SERVING_STATUS_NOT_SERVING: ServingStatus.NOT_SERVING,
    standard_pb2.HealthCheckResponse.SERVING_STATUS_SERVICE_UNKNOWN: ServingStatus.SERVICE_UNKNOWN,
}


def pack_request(
    weight: npt.ArrayLike,
    num_packs: int,
    item_group: npt.ArrayLike | None,
    options: SolverOptions | None,
) -> solver_service_pb2.PackRequest:
    """The request of `pack`.

    Raises:
        InvalidArgumentError: an argument cannot be sent.
    """
    return solver_service_pb2.PackRequest(
        weight=_tensor(as_amounts(weight, "weight")),
        num_packs=_uint32(num_packs, "num_packs"),
        item_group=None if item_group is None else _tensor(as_indices(item_group, "item_group")),
        options=_options(options),
    )


def place_request(
    load: npt.ArrayLike,
    topology: Topology,
    current: Placement | npt.ArrayLike | None,
    budget: MoveBudget | None,
    options: SolverOptions | None,
) -> solver_service_pb2.PlaceRequest:
    """The request of `place`.

    Raises:
        InvalidArgumentError: an argument cannot be sent.
    """
    return solver_service_pb2.PlaceRequest(
        load=_tensor(as_amounts(load, "load")),
        topology=_topology(topology),
        current=_placement(current),
        budget=_budget(budget),
        options=_options(options),
    )


def stream_config(
    topology: Topology,
    current: Placement | npt.ArrayLike | None,
    budget: MoveBudget | None,
    options: SolverOptions | None,
) -> solver_service_pb2.PlaceStreamRequest:
    """The first message up a stream.

    Raises:
        InvalidArgumentError: an argument cannot be sent.
    """
    config = solver_service_pb2.PlaceStreamConfig(
        topology=_topology(topology),
        current=_placement(current),
        budget=_budget(budget),
        options=_options(options),
    )
    return solver_service_pb2.PlaceStreamRequest(config=config)


def stream_load(index: int, load: npt.ArrayLike) -> solver_service_pb2.PlaceStreamRequest:
    """The message that carries load number `index` up a stream.

    Raises:
        InvalidArgumentError: the load cannot be sent.
    """
    tensor = _tensor(as_amounts(load, "load"))
    message = solver_service_pb2.PlaceStreamLoad(id=index, load=tensor)
    return solver_service_pb2.PlaceStreamRequest(load=message)


def health_request(service: str) -> standard_pb2.HealthCheckRequest:
    """The request of `health`."""
    return standard_pb2.HealthCheckRequest(service=service)


def pack_result(response: solver_service_pb2.PackResponse) -> PackResult:
    """The answer of `pack`.

    Raises:
        ProtocolError: a tensor is malformed.
    """
    return PackResult(_array(response.pack_index), _array(response.rank_in_pack))


def place_result(
    response: solver_service_pb2.PlaceResponse, num_experts: int, num_gpus: int
) -> PlaceResult:
    """The answer of `place`, checked.

    Raises:
        ProtocolError: a tensor is malformed, or the placement is not the one that
            its digest names.
    """
    return PlaceResult(
        placement=_checked_placement(response.placement, num_experts, num_gpus),
        moves=_moves(response.moves),
        before=_balance(response.before) if response.HasField("before") else None,
        after=_balance(response.after),
    )


def serving_status(response: standard_pb2.HealthCheckResponse) -> ServingStatus:
    """The answer of `health`."""
    return _SERVING_STATUSES.get(response.status, ServingStatus.UNKNOWN)


def _tensor(array: Matrix) -> tensor_pb2.Tensor:
    # `tobytes` writes C order whatever the strides: the only copy made here.
    data_type = _DATA_TYPES[array.dtype.newbyteorder("<")]
    return tensor_pb2.Tensor(data_type=data_type, shape=array.shape, data=array.tobytes())


def _array(tensor: tensor_pb2.Tensor) -> npt.NDArray[Any]:
    """A read-only view of the tensor's bytes."""
    dtype = _WIRE_TYPES.get(tensor.data_type)
    if dtype is None:
        raise ProtocolError(f"the server answered a tensor of unknown type {tensor.data_type}")
    data = tensor.data
    if len(data) != math.prod(tensor.shape) * dtype.itemsize:
        raise ProtocolError(
            f"the server answered {len(data)} bytes for a {dtype} tensor of shape "
            f"{list(tensor.shape)}"
        )
    array = np.frombuffer(data, dtype).reshape(tuple(tensor.shape))
    return array if dtype.isnative else array.astype(dtype.newbyteorder("="))


def _topology(topology: Topology) -> topology_pb2.Topology:
    fields = {name: _uint32(value, f"topology.{name}") for name, value in vars(topology).items()}
    return topology_pb2.Topology(**fields)


def _budget(budget: MoveBudget | None) -> placement_pb2.MoveBudget | None:
    if budget is None:
        return None
    return placement_pb2.MoveBudget(
        max_moves_per_layer=_optional_uint32(
            budget.max_moves_per_layer, "budget.max_moves_per_layer"
        ),
        max_moves=_optional_uint32(budget.max_moves, "budget.max_moves"),
        min_gain=_optional_real(budget.min_gain, "budget.min_gain"),
        cross_node_cost=_optional_real(budget.cross_node_cost, "budget.cross_node_cost"),
    )


def _options(options: SolverOptions | None) -> solver_service_pb2.SolverOptions | None:
    if options is None:
        return None
    iterations = options.max_iterations
    if iterations is not None:
        iterations = integer(iterations, "options.max_iterations", -1, 2**31 - 1)
    return solver_service_pb2.SolverOptions(
        effort=_choice(options.effort, _EFFORTS, "options.effort"),
        seed=integer(options.seed, "options.seed") % 2**64,
        objective=_choice(options.objective, _OBJECTIVES, "options.objective"),
        top_k=_optional_uint32(options.top_k, "options.top_k"),
        max_iterations=iterations,
        restarts=_optional_uint32(options.restarts, "options.restarts"),
    )


def _placement(current: Placement | npt.ArrayLike | None) -> placement_pb2.Placement | None:
    if current is None:
        return None
    if isinstance(current, Placement):
        return placement_pb2.Placement(phy2log=_tensor(current.phy2log), digest=current.digest)
    return placement_pb2.Placement(phy2log=_tensor(as_indices(current, "current.phy2log")))


def _checked_placement(
    message: placement_pb2.Placement, num_experts: int, num_gpus: int
) -> Placement:
    try:
        placement = Placement.of(_array(message.phy2log), num_experts, num_gpus)
    except InvalidArgumentError as error:
        raise ProtocolError(f"the server answered an invalid placement: {error}") from error
    if placement.digest != message.digest:
        raise ProtocolError(
            f"the server's placement has digest {placement.digest.hex()}, but it says "
            f"{message.digest.hex() or 'nothing'}: do not use it, and report this"
        )
    return placement


def _moves(message: placement_pb2.Moves) -> Moves:
    if not message.HasField("layer_slot_expert"):
        return Moves.none()
    layer_slot_expert_M3 = _array(message.layer_slot_expert)
    if layer_slot_expert_M3.ndim != 2 or layer_slot_expert_M3.shape[1] != 3:
        raise ProtocolError(f"the server answered moves of shape {layer_slot_expert_M3.shape}")
    layer, slot, expert = layer_slot_expert_M3.T
    return Moves(layer, slot, expert, _array(message.source_gpus))


def _balance(message: placement_pb2.Balance) -> Balance:
    imbalance_L = _array(message.imbalance)
    # A server older than the field does not set it; 1 is a bound for any load.
    bound_L = _array(message.bound) if message.HasField("bound") else np.ones_like(imbalance_L)
    return Balance(_array(message.gpu_load), imbalance_L, bound_L)


def _choice(value: object, choices: dict[Any, Any], field: str) -> Any:
    # A list cannot be looked up at all.
    if not isinstance(value, str | None) or value not in choices:
        raise invalid(field, f"{value!r} is not one of {[c for c in choices if c is not None]}")
    return choices[value]


def _optional_uint32(value: SupportsIndex | None, field: str) -> int | None:
    return None if value is None else _uint32(value, field)


def _optional_real(value: SupportsFloat | None, field: str) -> float | None:
    return None if value is None else real(value, field)


def _uint32(value: SupportsIndex, field: str) -> int:
    return integer(value, field, 0, _UINT32_MAX)
