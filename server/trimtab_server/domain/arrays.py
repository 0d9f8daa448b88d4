"""Checks that turn what a caller passes into tensors of one rank and dtype.

Legend for all shapes: L layers, E logical experts, R physical slots, G GPUs,
S = R / G slots of a GPU; X rows of a batch, n items, P packs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trimtab_server.domain.errors import invalid, require

_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)

_SERIAL = 1 << 14
"""Elements that torch converts in one go on the host: from 2**15 on it would wake its threads."""


def unthreaded(tensor: Tensor) -> Tensor | npt.NDArray[Any]:
    """What to compute on beside the solver: NumPy's view of a tensor on the host, else itself.

    Torch wakes threads of its own for tensors of 2**15 elements and more, and waits for
    the slowest: on a host that is busy, for milliseconds. NumPy stays on the calling thread.
    """
    return tensor.numpy() if tensor.device.type == "cpu" else tensor


def as_amounts(value: Any, name: str) -> Tensor:
    """Loads or weights as float64 [rows, columns], on the device they came on.

    Integers up to 2**53 stay exact.

    Raises:
        InvalidArgumentError: not rank 2, empty, an element that is NaN, infinite
            or negative, or a row whose sum is; the message holds index and value.
    """
    amounts = _as_matrix(value, name)
    require(not amounts.is_complex(), name, f"dtype {amounts.dtype} is not a real number")
    amounts = _converted(amounts, torch.float64)
    numbers = unthreaded(amounts)
    with np.errstate(over="ignore", invalid="ignore"):  # what is wrong is named below
        total = numbers.sum(1)[:, None]
    # A sum that is finite has terms that are, unless they are negative.
    if not (numbers.min() >= 0 and (total < np.inf).all()):
        _require_all((numbers > -np.inf) & (numbers < np.inf), amounts, name, "is not finite")
        _require_all(numbers >= 0, amounts, name, "is negative")
        sums = torch.as_tensor(total)
        _require_all(total < np.inf, sums, f"sum of {name}", "is not finite")
    return amounts


def as_indices(value: Any, name: str) -> Tensor:
    """Integers as int64 [rows, columns], on the device they came on.

    Raises:
        InvalidArgumentError: not rank 2, empty, or not of an integer dtype.
    """
    indices = _as_matrix(value, name)
    require(indices.dtype in _INTEGERS, name, f"dtype {indices.dtype} is not an integer type")
    return _converted(indices, torch.int64)


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
    experts = unthreaded(phy2log_LR)
    inside = (experts >= 0) & (experts < num_experts)
    _require_all(inside, phy2log_LR, name, f"is not an expert in [0, {num_experts})")
    missing = _first_false(unthreaded(replica_counts(phy2log_LR, num_experts)) > 0)
    if missing is not None:
        layer, expert = missing
        require(False, name, f"expert {expert} has no slot in layer {layer}")
    return phy2log_LR


def replica_counts(phy2log_LR: Tensor, num_experts: int) -> Tensor:
    """`logcnt` [L, E] int64: in how many slots each expert lies."""
    layers, experts_LR = len(phy2log_LR), unthreaded(phy2log_LR)
    if isinstance(experts_LR, Tensor):
        counts_LE = experts_LR.new_zeros(layers, num_experts)
        return counts_LE.scatter_add_(1, experts_LR, torch.ones_like(experts_LR))
    cell_LR = experts_LR + np.arange(layers)[:, None] * num_experts
    counts = np.bincount(cell_LR.ravel(), minlength=layers * num_experts)
    return torch.from_numpy(counts.reshape(layers, num_experts))


def _as_matrix(value: Any, name: str) -> Tensor:
    matrix = value if isinstance(value, Tensor) else _copied(value, name)
    shape = tuple(matrix.shape)
    require(matrix.layout == torch.strided, name, f"layout {matrix.layout} is not dense")
    require(matrix.ndim == 2, name, f"shape {shape} has rank {matrix.ndim}, not 2")
    require(matrix.numel() > 0, name, f"shape {shape} has no elements")
    return matrix.detach().resolve_neg()


def _copied(value: Any, name: str) -> Tensor:
    """Lists and arrays by way of numpy, which reads Python's floats as float64."""
    try:
        array = np.ascontiguousarray(value)
        return torch.from_numpy(array.astype(array.dtype.newbyteorder("=")))
    except (TypeError, ValueError) as error:
        raise invalid(name, f"is not an array of numbers: {error}") from error


def _converted(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """The same numbers as another type, by torch: it knows types that NumPy does not."""
    if matrix.dtype == dtype or matrix.device.type != "cpu":
        return matrix.to(dtype)
    converted = torch.empty(matrix.shape, dtype=dtype)
    columns = min(matrix.shape[1], _SERIAL)
    rows = _SERIAL // columns
    for to, whole in zip(converted.split(rows), matrix.split(rows), strict=True):
        for part, source in zip(to.split(columns, 1), whole.split(columns, 1), strict=True):
            part.copy_(source)
    return converted


def _require_all(holds: Tensor | npt.NDArray[Any], values: Tensor, name: str, rule: str) -> None:
    where = _first_false(holds)
    if where is not None:
        row, column = where
        require(False, f"{name}[{row}, {column}]", f"{values[row, column].item()} {rule}")


def _first_false(holds: Tensor | npt.NDArray[Any]) -> tuple[int, int] | None:
    """Row and column of the first element that is false; None if there is none."""
    if bool(holds.all()):
        return None
    on_host = holds.cpu().numpy() if isinstance(holds, Tensor) else holds
    row, column = np.argwhere(~on_host)[0].tolist()
    return row, column
