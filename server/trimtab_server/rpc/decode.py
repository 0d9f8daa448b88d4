"""Converts requests to values of the server. An error names every field at fault."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from trimtab.v1 import placement_pb2, solver_service_pb2, tensor_pb2, topology_pb2
from trimtab_protocol.errors import gather
from trimtab_protocol.wire import tensors
from trimtab_protocol.wire.tensors import Array
from trimtab_server.domain.errors import malformed_as_invalid, require
from trimtab_server.domain.topology import Topology
from trimtab_server.engine.plan_request import Options, Terms, UncheckedPlacement
from trimtab_server.rpc.fields import PACK_FIELDS, PLACE_FIELDS, named_as
from trimtab_server.solver.budget import Budget
from trimtab_server.solver.settings import Effort, Objective, settings_for

_EFFORTS: Mapping[int, Effort | None] = {
    solver_service_pb2.EFFORT_UNSPECIFIED: None,
    solver_service_pb2.EFFORT_FAST: "fast",
    solver_service_pb2.EFFORT_BALANCED: "balanced",
}
_OBJECTIVES: Mapping[int, Objective] = {
    solver_service_pb2.OBJECTIVE_UNSPECIFIED: "l2",
    solver_service_pb2.OBJECTIVE_L2: "l2",
    solver_service_pb2.OBJECTIVE_RANGE: "range",
}
_TO_CONVERGENCE = -1


class PackArguments(NamedTuple):
    """The arguments of Pack: weight [X, n], number of packs, item_group [X, n] or None."""

    weight: Array
    num_packs: int
    item_group: Array | None
    options: Options


class PlaceArguments(NamedTuple):
    """The arguments of Place: load [L, E], terms, and the current placement or None."""

    load: Array
    terms: Terms
    current: UncheckedPlacement | None


def decode_pack(message: solver_service_pb2.PackRequest) -> PackArguments:
    """Raises InvalidArgumentError with every field at fault."""
    with named_as(PACK_FIELDS):
        weight, item_group, options = gather(
            lambda: _required(message, "weight"),
            lambda: _optional(message, "item_group"),
            lambda: _options(message.options),
        )
    return PackArguments(weight, message.num_packs, item_group, options)


def decode_place(message: solver_service_pb2.PlaceRequest) -> PlaceArguments:
    """Raises InvalidArgumentError with every field at fault."""
    with named_as(PLACE_FIELDS):
        load, terms = gather(lambda: _required(message, "load"), lambda: _terms(message))
        current = _current(message, terms.topology)
    return PlaceArguments(load, terms, current)


def decode_config(
    message: solver_service_pb2.PlaceStreamConfig,
) -> tuple[Terms, UncheckedPlacement | None]:
    """The terms of all loads of a stream, and the placement that it starts from.

    Raises InvalidArgumentError with every field at fault.
    """
    with named_as(PLACE_FIELDS):
        terms = _terms(message)
        return terms, _current(message, terms.topology)


def decode_load(message: solver_service_pb2.PlaceStreamLoad) -> Array:
    """Raises InvalidArgumentError with every field at fault."""
    return _required(message, "load")


def decode_tensor(message: tensor_pb2.Tensor, field: str) -> Array:
    """The matrix in a message: read-only, and backed by the message's bytes.

    Raises:
        InvalidArgumentError: the data type is unknown, the shape is not [rows, columns] with sizes
            of at least 1, or the length of the data does not match the shape.
    """
    with malformed_as_invalid():
        return tensors.decode_tensor(message, field, rank=2)


def _required(message: Any, field: str) -> Array:
    require(message.HasField(field), field, "is required")
    return decode_tensor(getattr(message, field), field)


def _optional(message: Any, field: str) -> Array | None:
    return _required(message, field) if message.HasField(field) else None


def _terms(
    message: solver_service_pb2.PlaceRequest | solver_service_pb2.PlaceStreamConfig,
) -> Terms:
    topology, budget, options = gather(
        lambda: decode_topology(message.topology),
        lambda: decode_budget(message.budget) if message.HasField("budget") else None,
        lambda: _options(message.options),
    )
    return Terms(topology, budget, options)


def decode_topology(message: topology_pb2.Topology) -> Topology:
    """Raises InvalidArgumentError with every field at fault."""
    return Topology(
        message.num_replicas, message.num_gpus, message.num_nodes or 1, message.num_groups or 1
    )


def decode_topology_for_experts(message: Any) -> Topology:
    """The topology in a message that has `num_experts` too, which have to fit into it."""
    topology = decode_topology(message.topology)
    topology.check_experts(message.num_experts)
    return topology


def decode_budget(message: placement_pb2.MoveBudget) -> Budget:
    """Raises InvalidArgumentError with every field at fault."""
    return Budget(**{field.name: value for field, value in message.ListFields()})


def _options(message: solver_service_pb2.SolverOptions) -> Options:
    known: dict[str, Mapping[int, Any]] = {"effort": _EFFORTS, "objective": _OBJECTIVES}
    for name, values in known.items():
        number = getattr(message, name)
        require(number in values, name, f"{number} is not a known {name}")
    overrides: dict[str, Any] = {"seed": message.seed, "objective": _OBJECTIVES[message.objective]}
    for name in ("top_k", "max_iterations", "restarts"):
        if message.HasField(name):
            overrides[name] = getattr(message, name)
    if overrides.get("max_iterations") == _TO_CONVERGENCE:
        overrides["max_iterations"] = None
    settings_for("fast", **overrides)
    return Options(_EFFORTS[message.effort], overrides)


def _current(
    message: solver_service_pb2.PlaceRequest | solver_service_pb2.PlaceStreamConfig,
    topology: Topology,
) -> UncheckedPlacement | None:
    """The current placement. The solver thread checks its entries, which takes long."""
    if not message.HasField("current"):
        return None
    require(message.current.HasField("phy2log"), "current", "is required")
    phy2log_LR = decode_tensor(message.current.phy2log, "current.phy2log")
    dtype, shape, slots = phy2log_LR.dtype, list(phy2log_LR.shape), topology.num_replicas
    require(dtype.kind == "i", "current.phy2log.data_type", f"{dtype} is not an integer type")
    rule = f"{shape} does not have num_replicas = {slots} columns"
    require(shape[1] == slots, "current.phy2log.shape", rule)
    return UncheckedPlacement(phy2log_LR, message.current.digest)
