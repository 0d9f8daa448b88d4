"""What several services share, as messages and back. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, SupportsFloat, SupportsIndex

import numpy.typing as npt

from trimtab.v1 import placement_pb2, tensor_pb2, topology_pb2
from trimtab_client.arrays import as_indices
from trimtab_client.checks import integer, real
from trimtab_client.exceptions import InvalidArgumentError, ProtocolError
from trimtab_client.options import MoveBudget, Topology
from trimtab_client.placement import Placement
from trimtab_protocol.errors import MalformedError
from trimtab_protocol.version import Version
from trimtab_protocol.wire.tensors import decode_tensor, encode_tensor
from trimtab_protocol.wire.values import encode_placement

_UINT32_MAX = 2**32 - 1


def array_of(tensor: tensor_pb2.Tensor) -> npt.NDArray[Any]:
    """A read-only view of the bytes of a tensor that the server answered.

    Raises:
        ProtocolError: its type is unknown, or its bytes are not of its shape.
    """
    try:
        return decode_tensor(tensor, "tensor")
    except MalformedError as error:
        raise ProtocolError(f"the server's answer cannot be read: {error}") from error


def topology_message(topology: Topology, field: str = "topology") -> topology_pb2.Topology:
    """A topology.

    Raises:
        InvalidArgumentError: a value is not a uint32; the error names `field`.
    """
    fields = {name: uint32(value, f"{field}.{name}") for name, value in vars(topology).items()}
    return topology_pb2.Topology(**fields)


def topology_value(message: topology_pb2.Topology) -> Topology:
    """A topology that the server answered: nodes and groups that are not set are one each."""
    return Topology(
        num_replicas=message.num_replicas,
        num_gpus=message.num_gpus,
        num_nodes=message.num_nodes or 1,
        num_groups=message.num_groups or 1,
    )


def given(message: Any, field: str) -> Any:
    """A field of a message; None where it is not set."""
    return getattr(message, field) if message.HasField(field) else None


def step_value(step: int) -> int | None:
    """A step that the server answered; it says -1 where there is none."""
    return None if step < 0 else step


def version_value(message: Any, field: str) -> Version | None:
    """The version in a field of a message; None where it is not set."""
    value = given(message, field)
    return None if value is None else Version(value.epoch, value.generation)


def placement_message(
    placement: Placement | npt.ArrayLike | None, field: str
) -> placement_pb2.Placement | None:
    """A placement, or a bare `phy2log` [L, R], which then has no digest.

    Raises:
        InvalidArgumentError: it is not a matrix of integers; the error names `field`.
    """
    if placement is None:
        return None
    if isinstance(placement, Placement):
        return encode_placement(placement)
    phy2log = encode_tensor(as_indices(placement, f"{field}.phy2log"))
    return placement_pb2.Placement(phy2log=phy2log)


def budget_message(budget: MoveBudget | None) -> placement_pb2.MoveBudget | None:
    """A budget.

    Raises:
        InvalidArgumentError: a value cannot be sent.
    """
    if budget is None:
        return None
    return placement_pb2.MoveBudget(
        max_moves_per_layer=optional_uint32(
            budget.max_moves_per_layer, "budget.max_moves_per_layer"
        ),
        max_moves=optional_uint32(budget.max_moves, "budget.max_moves"),
        min_gain=optional_real(budget.min_gain, "budget.min_gain"),
        cross_node_cost=optional_real(budget.cross_node_cost, "budget.cross_node_cost"),
    )


def checked_placement(
    message: placement_pb2.Placement, num_experts: int, num_gpus: int
) -> Placement:
    """A placement that the server answered.

    Raises:
        ProtocolError: it is none, or not the one that its digest names.
    """
    placement = _placement(message, num_experts, num_gpus)
    if placement.digest != message.digest:
        raise _another_digest(placement.digest.hex(), message)
    return placement


def named_placement(message: placement_pb2.Placement) -> Placement:
    """A placement that came without E and G: its digest, which covers both, says what they are.

    Each expert has a slot, so E follows from the slots. G is the divisor of their number that
    gives the digest.

    Raises:
        ProtocolError: it is none, or no G gives the digest.
    """
    phy2log_LR = array_of(message.phy2log)
    # At most as many as slots, whatever the server says: an expert takes memory.
    num_experts = min(int(phy2log_LR.max(initial=0)) + 1, max(phy2log_LR.shape, default=1))
    whole = _placement(message, num_experts, 1)
    slots = whole.phy2log.shape[1]
    divisors = (gpus for gpus in range(1, slots + 1) if slots % gpus == 0)
    for placement in (replace(whole, num_gpus=gpus) for gpus in divisors):
        if placement.digest == message.digest:
            return placement
    raise _another_digest("another one for any number of GPUs", message)


def optional_uint32(value: SupportsIndex | None, field: str) -> int | None:
    """`value` as a uint32, or None.

    Raises:
        InvalidArgumentError: it is neither.
    """
    return None if value is None else uint32(value, field)


def optional_real(value: SupportsFloat | None, field: str) -> float | None:
    """`value` as a float, or None.

    Raises:
        InvalidArgumentError: it is neither.
    """
    return None if value is None else real(value, field)


def uint32(value: SupportsIndex, field: str) -> int:
    """`value` as a uint32.

    Raises:
        InvalidArgumentError: it is none.
    """
    return integer(value, field, 0, _UINT32_MAX)


def _placement(message: placement_pb2.Placement, num_experts: int, num_gpus: int) -> Placement:
    try:
        return Placement.of(array_of(message.phy2log), num_experts, num_gpus)
    except InvalidArgumentError as error:
        raise ProtocolError(f"the server answered an invalid placement: {error}") from error


def _another_digest(digest: str, message: placement_pb2.Placement) -> ProtocolError:
    return ProtocolError(
        f"the server's placement has digest {digest}, but it says "
        f"{message.digest.hex() or 'nothing'}: do not use it, and report this"
    )
