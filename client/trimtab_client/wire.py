"""Values of the solver and of the health service as messages and back.

Requests raise InvalidArgumentError if an argument cannot be sent, and answers raise ProtocolError
if they cannot be read.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.v1 import placement_pb2, solver_service_pb2
from trimtab.wire.v1 import standard_pb2
from trimtab_client.arrays import as_amounts, as_indices
from trimtab_client.checks import integer
from trimtab_client.exceptions import ProtocolError, invalid
from trimtab_client.options import MoveBudget, SolverOptions, Topology
from trimtab_client.placement import Balance, Placement
from trimtab_client.results import Moves, PackResult, PlaceResult
from trimtab_client.wire_values import (
    array_of,
    budget_message,
    checked_placement,
    optional_uint32,
    placement_message,
    topology_message,
    uint32,
)
from trimtab_protocol.wire.tensors import encode_tensor

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


class ServingStatus(Enum):
    """The health that a server reports of itself or of one of its services."""

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
    """The request of `pack`."""
    return solver_service_pb2.PackRequest(
        weight=encode_tensor(as_amounts(weight, "weight")),
        num_packs=uint32(num_packs, "num_packs"),
        item_group=None
        if item_group is None
        else encode_tensor(as_indices(item_group, "item_group")),
        options=_options(options),
    )


def place_request(
    load: npt.ArrayLike,
    topology: Topology,
    current: Placement | npt.ArrayLike | None,
    budget: MoveBudget | None,
    options: SolverOptions | None,
) -> solver_service_pb2.PlaceRequest:
    """The request of `place`."""
    tensor = encode_tensor(as_amounts(load, "load"))
    terms = _terms(topology, current, budget, options)
    return solver_service_pb2.PlaceRequest(load=tensor, **terms)


def stream_config(
    topology: Topology,
    current: Placement | npt.ArrayLike | None,
    budget: MoveBudget | None,
    options: SolverOptions | None,
) -> solver_service_pb2.PlaceStreamRequest:
    """The first message to the server on a stream."""
    terms = _terms(topology, current, budget, options)
    config = solver_service_pb2.PlaceStreamConfig(**terms)
    return solver_service_pb2.PlaceStreamRequest(config=config)


def stream_load(index: int, load: npt.ArrayLike) -> solver_service_pb2.PlaceStreamRequest:
    """The message to the server that carries load number `index` of a stream."""
    tensor = encode_tensor(as_amounts(load, "load"))
    message = solver_service_pb2.PlaceStreamLoad(id=index, load=tensor)
    return solver_service_pb2.PlaceStreamRequest(load=message)


def health_request(service: str) -> standard_pb2.HealthCheckRequest:
    """The request of `health`."""
    return standard_pb2.HealthCheckRequest(service=service)


def pack_result(response: solver_service_pb2.PackResponse) -> PackResult:
    """The answer of `pack`."""
    return PackResult(array_of(response.pack_index), array_of(response.rank_in_pack))


def place_result(
    response: solver_service_pb2.PlaceResponse, num_experts: int, num_gpus: int
) -> PlaceResult:
    """The answer of `place`, if the digest of its placement is right."""
    return PlaceResult(
        placement=checked_placement(response.placement, num_experts, num_gpus),
        moves=_moves(response.moves),
        before=_balance(response.before) if response.HasField("before") else None,
        after=_balance(response.after),
    )


def serving_status(response: standard_pb2.HealthCheckResponse) -> ServingStatus:
    """The answer of `health`."""
    return _SERVING_STATUSES.get(response.status, ServingStatus.UNKNOWN)


def _terms(
    topology: Topology,
    current: Placement | npt.ArrayLike | None,
    budget: MoveBudget | None,
    options: SolverOptions | None,
) -> dict[str, Any]:
    """The fields that PlaceRequest and PlaceStreamConfig share."""
    return {
        "topology": topology_message(topology),
        "current": placement_message(current, "current"),
        "budget": budget_message(budget),
        "options": _options(options),
    }


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
        top_k=optional_uint32(options.top_k, "options.top_k"),
        max_iterations=iterations,
        restarts=optional_uint32(options.restarts, "options.restarts"),
    )


def _moves(message: placement_pb2.Moves) -> Moves:
    if not message.HasField("layer_slot_expert"):
        return Moves.none()
    layer_slot_expert_M3 = array_of(message.layer_slot_expert)
    if layer_slot_expert_M3.ndim != 2 or layer_slot_expert_M3.shape[1] != 3:
        raise ProtocolError(f"the server sent moves of shape {layer_slot_expert_M3.shape}")
    layer, slot, expert = layer_slot_expert_M3.T
    return Moves(layer, slot, expert, array_of(message.source_gpus))


def _balance(message: placement_pb2.Balance) -> Balance:
    imbalance_L = array_of(message.imbalance)
    # Older servers do not set this field. 1 is a bound for any load.
    bound_L = array_of(message.bound) if message.HasField("bound") else np.ones_like(imbalance_L)
    return Balance(array_of(message.gpu_load), imbalance_L, bound_L)


def _choice(value: object, choices: dict[Any, Any], field: str) -> Any:
    # The type is checked first because looking up an unhashable value, such as a list, raises.
    if not isinstance(value, str | None) or value not in choices:
        raise invalid(field, f"{value!r} is not one of {[c for c in choices if c is not None]}")
    return choices[value]
