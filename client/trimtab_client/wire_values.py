"""Values that several services share, as messages and back.

Requests raise InvalidArgumentError if an argument cannot be sent; the error names its `field`.
Answers raise ProtocolError if they cannot be read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, SupportsIndex

import numpy.typing as npt

from trimtab.v1 import placement_pb2, tensor_pb2, topology_pb2
from trimtab.v1alpha1 import switch_pb2
from trimtab_client.arrays import as_indices
from trimtab_client.checks import integer, real
from trimtab_client.exceptions import InvalidArgumentError, ProtocolError, invalid
from trimtab_client.options import MoveBudget, Topology
from trimtab_client.placement import Placement
from trimtab_protocol.errors import MalformedError
from trimtab_protocol.version import Version
from trimtab_protocol.wire.tensors import decode_tensor, encode_tensor
from trimtab_protocol.wire.values import encode_placement, encode_version

_UINT64_MAX = 2**64 - 1

Check = Callable[[Any, str], Any]
"""Checks a value, and names it by a path: see `checks`."""


def array_of(tensor: tensor_pb2.Tensor) -> npt.NDArray[Any]:
    """A read-only view of the bytes of a tensor."""
    try:
        return decode_tensor(tensor, "tensor")
    except MalformedError as error:
        raise ProtocolError(f"the server's answer cannot be read: {error}") from error


def topology_message(topology: Topology, field: str = "topology") -> topology_pb2.Topology:
    """A topology as a message."""
    fields = {name: uint32(value, f"{field}.{name}") for name, value in vars(topology).items()}
    return topology_pb2.Topology(**fields)


def step_value(step: int) -> int | None:
    """A step; the server sends -1 for none."""
    return None if step < 0 else step


def as_version(value: Version | SupportsIndex | str, field: str) -> Version:
    """A version as operators name it, such as Version(2, 3), 3, "2.3" or "3".

    Where the generation is named alone, the epoch is 0.
    """
    if isinstance(value, str):
        if not re.fullmatch(r"([0-9]{1,20}\.)?[0-9]{1,20}", value):
            raise invalid(field, f"{value!r} is not a version such as '2.3', or a generation")
        head, _, tail = value.rpartition(".")
        value = Version(int(head or 0), int(tail))
    numbers = value if isinstance(value, Version) else (0, value)
    return Version(*(integer(number, field, 0, _UINT64_MAX) for number in numbers))


def version_message(version: Version | SupportsIndex | str, field: str) -> switch_pb2.Version:
    """A version, in any of the forms that `as_version` takes, as a message."""
    return encode_version(as_version(version, field))


def version_value(message: switch_pb2.Version) -> Version:
    """The version in a message."""
    return Version(message.epoch, message.generation)


def placement_message(
    placement: Placement | npt.ArrayLike | None, field: str
) -> placement_pb2.Placement | None:
    """A placement as a message. A bare `phy2log` [L, R] is sent without a digest."""
    if placement is None:
        return None
    if isinstance(placement, Placement):
        return encode_placement(placement)
    phy2log = encode_tensor(as_indices(placement, f"{field}.phy2log"))
    return placement_pb2.Placement(phy2log=phy2log)


def budget_message(budget: MoveBudget | None) -> placement_pb2.MoveBudget | None:
    """A budget as a message."""
    if budget is None:
        return None
    return placement_pb2.MoveBudget(**checked(budget, "budget", _BUDGET))


def checked_placement(
    message: placement_pb2.Placement, num_experts: int, num_gpus: int
) -> Placement:
    """The placement in a message, if its digest is right."""
    placement = _placement(message, num_experts, num_gpus)
    if placement.digest != message.digest:
        raise _wrong_digest(f"has digest {placement.digest.hex()}", message)
    return placement


def placement_by_digest(message: placement_pb2.Placement) -> Placement:
    """The placement in a message that has neither E nor G: its digest covers both.

    Each expert has a slot, so E follows from the slots. G is the divisor of the number of slots
    that gives the digest.
    """
    phy2log_LR = array_of(message.phy2log)
    # E is limited to the number of slots, whatever the server sent, because it costs memory.
    num_experts = min(int(phy2log_LR.max(initial=0)) + 1, max(phy2log_LR.shape, default=1))
    whole = _placement(message, num_experts, 1)
    slots = whole.phy2log.shape[1]
    divisors = (gpus for gpus in range(1, slots + 1) if slots % gpus == 0)
    for placement in (replace(whole, num_gpus=gpus) for gpus in divisors):
        if placement.digest == message.digest:
            return placement
    raise _wrong_digest("has another digest for every number of GPUs", message)


def checked(value: object, path: str, checks: Mapping[str, Check]) -> dict[str, Any]:
    """The fields of a value that may be None, each checked otherwise, and named by its path."""
    fields = {name: getattr(value, name) for name in checks}
    return {
        name: None if field is None else checks[name](field, f"{path}.{name}")
        for name, field in fields.items()
    }


def uint32(value: SupportsIndex, field: str) -> int:
    """`value` as a uint32."""
    return integer(value, field, 0, 2**32 - 1)


_BUDGET: Mapping[str, Check] = {
    "max_moves_per_layer": uint32,
    "max_moves": uint32,
    "min_gain": real,
    "cross_node_cost": real,
}


def _placement(message: placement_pb2.Placement, num_experts: int, num_gpus: int) -> Placement:
    try:
        return Placement.of(array_of(message.phy2log), num_experts, num_gpus)
    except InvalidArgumentError as error:
        raise ProtocolError(f"the server sent an invalid placement: {error}") from error


def _wrong_digest(found: str, message: placement_pb2.Placement) -> ProtocolError:
    return ProtocolError(
        f"the placement that the server sent {found}, but the server says that its digest is "
        f"{message.digest.hex() or 'empty'}. Do not use this placement, and report the error."
    )
