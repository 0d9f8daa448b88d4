"""Versions and placements as messages and back."""

from __future__ import annotations

from typing import Any

from trimtab.v1 import placement_pb2
from trimtab.v1alpha1 import switch_pb2
from trimtab_protocol.errors import require
from trimtab_protocol.placement import Placement
from trimtab_protocol.version import MAX_NUMBER, Version
from trimtab_protocol.wire.tensors import encode_tensor


def encode_version(version: Version) -> switch_pb2.Version:
    """A version as a message."""
    return switch_pb2.Version(epoch=version.epoch, generation=version.generation)


def decode_version(message: switch_pb2.Version, field: str) -> Version:
    """The version in a message.

    Raises:
        MalformedError: a number is so high that none could follow it.
    """
    highest = max(message.epoch, message.generation)
    require(highest <= MAX_NUMBER, field, f"{highest} is above {MAX_NUMBER}")
    return Version(message.epoch, message.generation)


def decode_field_version(message: Any, name: str, path: str) -> Version:
    """The version in the field `name` of a message.

    Raises:
        MalformedError: the field is not set, or see `decode_version`.
    """
    require(message.HasField(name), f"{path}.{name}", "is required")
    return decode_version(getattr(message, name), f"{path}.{name}")


def encode_placement(placement: Placement) -> placement_pb2.Placement:
    """A placement as a message, with its digest."""
    return placement_pb2.Placement(
        phy2log=encode_tensor(placement.phy2log), digest=placement.digest
    )
