"""Counts the bytes of a job's buffers."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor


def held_bytes(*holders: object) -> int:
    """Bytes of the tensors that are attributes of these objects, alone or in tuples.

    A tensor that has several names counts once. For objects on the device "meta", which
    allocates nothing, this is what they would take on another device.
    """
    found = {id(tensor): tensor.nbytes for holder in holders for tensor in _tensors(holder)}
    return sum(found.values())


def _tensors(holder: object) -> Iterator[Tensor]:
    for value in vars(holder).values():
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, Tensor):
                yield item
