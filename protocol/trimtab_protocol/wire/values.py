"""Versions, placements, and values of which each field has a field of the message, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from enum import Enum
from functools import cache
from typing import Any, TypeVar

from trimtab.v1 import placement_pb2, topology_pb2
from trimtab.v1alpha1 import switch_pb2
from trimtab_protocol.errors import require
from trimtab_protocol.messages import Topology
from trimtab_protocol.placement import Placement
from trimtab_protocol.version import MAX_NUMBER, Version
from trimtab_protocol.wire.tensors import encode_tensor

T = TypeVar("T")
EnumT = TypeVar("EnumT", bound=Enum)


def value_of(kind: Callable[..., T], message: Any, /, **converted: Any) -> T:
    """A dataclass or a named tuple, made of the fields of a message that have the same names.

    An optional field that is not set becomes None. `converted` are those that are not read as they
    are.
    """
    for name, optional in _fields(kind, message.DESCRIPTOR):
        if name not in converted:
            unset = optional and not message.HasField(name)
            converted[name] = None if unset else getattr(message, name)
    return kind(**converted)


@cache
def _fields(kind: Any, descriptor: Any) -> tuple[tuple[str, bool], ...]:
    """The fields of a kind, and whether the message has each and may leave it unset."""
    names = getattr(kind, "_fields", None) or [each.name for each in fields(kind)]
    there = descriptor.fields_by_name
    return tuple((name, name in there and there[name].has_presence) for name in names)


def optional(message: Any, name: str, convert: Callable[[Any], T]) -> T | None:
    """A field of a message, converted; None if it is not set."""
    return convert(getattr(message, name)) if message.HasField(name) else None


def numbers_of(members: Iterable[EnumT], wire: Any, prefix: str) -> Mapping[EnumT, Any]:
    """The numbers of members in the enum `wire` of the contract: names have a prefix there.

    A member called UNKNOWN has none: it stands for what only the other side knows.
    """
    known = (member for member in members if member.name != "UNKNOWN")
    return {member: wire.Value(f"{prefix}_{member.name}") for member in known}


def members_of(members: Iterable[EnumT], wire: Any, prefix: str) -> Mapping[int, EnumT]:
    """The same, the other way round."""
    return {number: member for member, number in numbers_of(members, wire, prefix).items()}


def encode_version(version: Version) -> switch_pb2.Version:
    """A version as a message."""
    return switch_pb2.Version(epoch=version.epoch, generation=version.generation)


def decode_version(message: switch_pb2.Version, field: str) -> Version:
    """The version in a message. A number so high that none could follow it is refused."""
    highest = max(message.epoch, message.generation)
    require(highest <= MAX_NUMBER, field, f"{highest} is above {MAX_NUMBER}")
    return Version(message.epoch, message.generation)


def decode_field_version(message: Any, name: str, path: str) -> Version:
    """The version in the field `name` of a message, which has to be set."""
    require(message.HasField(name), f"{path}.{name}", "is required")
    return decode_version(getattr(message, name), f"{path}.{name}")


def encode_placement(placement: Placement) -> placement_pb2.Placement:
    """A placement as a message, with its digest."""
    return placement_pb2.Placement(
        phy2log=encode_tensor(placement.phy2log), digest=placement.digest
    )


def decode_topology(message: topology_pb2.Topology) -> Topology:
    """The topology in a message. If nodes or groups are not set, there is one."""
    nodes, groups = message.num_nodes or 1, message.num_groups or 1
    return Topology(message.num_replicas, message.num_gpus, nodes, groups)
