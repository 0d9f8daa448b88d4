"""Values of the solver and of the health service as messages and back.

Requests raise InvalidArgumentError if an argument cannot be sent, and answers raise ProtocolError
if they cannot be read.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from functools import partial
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from trimtab.v1 import placement_pb2
from trimtab.v1 import solver_service_pb2 as pb
from trimtab.wire.v1 import standard_pb2
from trimtab_client import wire_values
from trimtab_client.arrays import as_amounts, as_indices
from trimtab_client.checks import integer
from trimtab_client.exceptions import ProtocolError, invalid
from trimtab_client.options import Effort, MoveBudget, Objective, SolverOptions, Topology
from trimtab_client.placement import Balance, Placement
from trimtab_client.results import Moves, PackResult, PlaceResult
from trimtab_client.wire_values import Check, array_of, uint32
from trimtab_protocol.wire.tensors import encode_tensor

Terms = tuple[Topology, Placement | npt.ArrayLike | None, MoveBudget | None, SolverOptions | None]
"""The topology, the current placement, the budget and the options of `place`."""

_LIMITS: Mapping[str, Check] = {
    "max_iterations": partial(integer, low=-1, high=2**31 - 1),
    "top_k": uint32,
    "restarts": uint32,
}


class ServingStatus(Enum):
    """The health that a server reports of itself or of one of its services."""

    UNKNOWN = "UNKNOWN"
    SERVING = "SERVING"
    NOT_SERVING = "NOT_SERVING"
    SERVICE_UNKNOWN = "SERVICE_UNKNOWN"


_SERVING_STATUSES = {
    standard_pb2.HealthCheckResponse.ServingStatus.Value(f"SERVING_STATUS_{status.name}"): status
    for status in ServingStatus
    if status is not ServingStatus.UNKNOWN
}


def pack_request(
    weight: npt.ArrayLike,
    num_packs: int,
    item_group: npt.ArrayLike | None,
    options: SolverOptions | None,
) -> pb.PackRequest:
    """The request of `pack`."""
    weights, packs = encode_tensor(as_amounts(weight, "weight")), uint32(num_packs, "num_packs")
    request = pb.PackRequest(weight=weights, num_packs=packs, options=_options(options))
    if item_group is not None:
        request.item_group.CopyFrom(encode_tensor(as_indices(item_group, "item_group")))
    return request


def place_request(load: npt.ArrayLike, *terms: *Terms) -> pb.PlaceRequest:
    """The request of `place`."""
    tensor = encode_tensor(as_amounts(load, "load"))
    return pb.PlaceRequest(load=tensor, **_terms(*terms))


def stream_config(*terms: *Terms) -> pb.PlaceStreamRequest:
    """The first message to the server on a stream."""
    return pb.PlaceStreamRequest(config=pb.PlaceStreamConfig(**_terms(*terms)))


def stream_load(index: int, load: npt.ArrayLike) -> pb.PlaceStreamRequest:
    """The message to the server that carries load number `index` of a stream."""
    tensor = encode_tensor(as_amounts(load, "load"))
    return pb.PlaceStreamRequest(load=pb.PlaceStreamLoad(id=index, load=tensor))


def pack_result(response: pb.PackResponse) -> PackResult:
    """The answer of `pack`."""
    return PackResult(array_of(response.pack_index), array_of(response.rank_in_pack))


def place_result(response: pb.PlaceResponse, num_experts: int, num_gpus: int) -> PlaceResult:
    """The answer of `place`, if the digest of its placement is right."""
    return PlaceResult(
        placement=wire_values.checked_placement(response.placement, num_experts, num_gpus),
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
        "topology": wire_values.topology_message(topology),
        "current": wire_values.placement_message(current, "current"),
        "budget": wire_values.budget_message(budget),
        "options": _options(options),
    }


def _options(options: SolverOptions | None) -> pb.SolverOptions | None:
    if options is None:
        return None
    return pb.SolverOptions(
        effort=_choice(options.effort, get_args(Effort), pb.Effort),
        seed=integer(options.seed, "options.seed") % 2**64,
        objective=_choice(options.objective, get_args(Objective), pb.Objective),
        **wire_values.checked(options, "options", _LIMITS),
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


def _choice(value: object, names: tuple[str, ...], wire: Any) -> Any:
    field = wire.DESCRIPTOR.name
    if value is None:
        return wire.Value(f"{field}_UNSPECIFIED".upper())
    if not isinstance(value, str) or value not in names:
        raise invalid(f"options.{field.lower()}", f"{value!r} is not one of {list(names)}")
    return wire.Value(f"{field}_{names[names.index(value)]}".upper())
