"""Checks that turn what a caller passes into tensors of one rank and dtype.

Legend for all shapes: L layers, E logical experts, R physical slots, G GPUs,
S = R / G slots of a GPU; X rows of a batch, n items, P packs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from trimtab_server.domain.errors import invalid, require

_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def as_amounts(value: Any, name: str) -> Tensor:
    """Loads or weights as float64 [rows, columns], on the device they came on.

    Integers up to 2**53 stay exact.

    Raises:
        InvalidArgumentError: not rank 2, empty, an element that is NaN, infinite
            or negative, or a row whose sum is; the message holds index and value.
    """
    amounts = _as_matrix(value, name)
    require(not amounts.is_complex(), name, f"dtype {amounts.dtype} is not a real number")
    amounts = amounts.to(torch.float64)
    _require_all(torch.isfinite(amounts), amounts, name, "is not finite")
    _require_all(amounts >= 0, amounts, name, "is negative")
    total = amounts.sum(1, keepdim=True)
    _require_all(torch.isfinite(total), total, f"sum of {name}", "is not finite")
    return amounts


def as_indices(value: Any, name: str) -> Tensor:
    """Integers as int64 [rows, columns], on the device they came on.

    Raises:
        InvalidArgumentError: not rank 2, empty, or not of an integer dtype.
    """
    indices = _as_matrix(value, name)
    require(indices.dtype in _INTEGERS, name, f"dtype {indices.dtype} is not an integer type")
    return indices.to(torch.int64)


def check_phy2log(
    value: Any, name: str, num_experts: int, num_replicas: int | None = None
) -> Tensor:
    """A `phy2log` [L, R] as int64, in which every layer holds every expert.

    Raises:
        InvalidArgumentError: wrong rank, dtype or number of slots, an entry
            outside [0, E), or an expert without a slot.
    """
    phy2log_LR = as_indices(value, name)
    slots = phy2log_LR.shape[1]
    require(
        num_replicas is None or slots == num_replicas,
        name,
        f"has {slots} slots a layer where num_replicas is {num_replicas}",
    )
    inside = (phy2log_LR >= 0) & (phy2log_LR < num_experts)
    _require_all(inside, phy2log_LR, name, f"is not an expert in [0, {num_experts})")
    held_LE = replica_counts(phy2log_LR, num_experts) > 0
    missing = torch.nonzero(~held_LE)[:1].tolist()
    if missing:
        layer, expert = missing[0]
        require(False, name, f"expert {expert} has no slot in layer {layer}")
    return phy2log_LR


def replica_counts(phy2log_LR: Tensor, num_experts: int) -> Tensor:
    """`logcnt` [L, E] int64: in how many slots each expert lies."""
    counts_LE = phy2log_LR.new_zeros(phy2log_LR.shape[0], num_experts)
    return counts_LE.scatter_add_(1, phy2log_LR, torch.ones_like(phy2log_LR))


def _as_matrix(value: Any, name: str) -> Tensor:
    matrix = value if isinstance(value, Tensor) else _copied(value, name)
    shape = tuple(matrix.shape)
    require(matrix.layout == torch.strided, name, f"layout {matrix.layout} is not dense")
    require(matrix.ndim == 2, name, f"shape {shape} has rank {matrix.ndim}, not 2")
    require(matrix.numel() > 0, name, f"shape {shape} has no elements")
    return matrix.detach()


def _copied(value: Any, name: str) -> Tensor:
    """Lists and arrays by way of numpy, which reads Python's floats as float64."""
    try:
        array = np.ascontiguousarray(value)
        return torch.tensor(array.astype(array.dtype.newbyteorder("="), copy=False))
    except (TypeError, ValueError) as error:
        raise invalid(name, f"is not an array of numbers: {error}") from error


def _require_all(holds: Tensor, values: Tensor, name: str, rule: str) -> None:
    if bool(holds.all()):
        return
    row, column = torch.nonzero(~holds)[0].tolist()
    require(False, f"{name}[{row}, {column}]", f"{values[row, column].item()} {rule}")
