"""How much memory the buffers of a job take."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor


def held_bytes(*holders: object) -> int:
    """Bytes of the tensors that these objects have as attributes, singly or in tuples.

    A tensor that has several names counts once. On the device "meta", where nothing is
    allocated, it is what the same objects would take elsewhere.
    """
    found = {id(tensor): tensor.nbytes for holder in holders for tensor in _tensors(holder)}
    return sum(found.values())


def _tensors(holder: object) -> Iterator[Tensor]:
    for value in vars(holder).values():
        for item in value if isinstance(value, tuple) else (value,):
            if isinstance(item, Tensor):
                yield item
