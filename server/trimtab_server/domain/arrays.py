"""Checks the arrays that callers pass, and converts them to tensors of one rank and dtype.

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

_INTEGERS = (
    *(torch.uint8, torch.uint16, torch.uint32, torch.uint64),
    *(torch.int8, torch.int16, torch.int32, torch.int64),
)
_INT64_MAX = torch.iinfo(torch.int64).max

_SERIAL = 1 << 14
"""Elements that torch converts at once on the host: with 2**15 it would wake its threads."""


def unthreaded(tensor: Tensor) -> Tensor | npt.NDArray[Any]:
    """A NumPy view of a tensor on the host, for computing on one thread; others as they are.

    Torch wakes its own threads for tensors of 2**15 elements and more, and waits for the
    slowest one: on a busy host, for milliseconds. NumPy stays on the calling thread.
    """
    return tensor.numpy() if tensor.device.type == "cpu" else tensor


def as_amounts(value: Any, name: str) -> Tensor:
    """Loads or weights of any integer or floating type as float64 [rows, columns].

    They are on the device of the input. Integers up to 2**53 stay exact. The client takes and
    refuses the same types.

    Raises:
        InvalidArgumentError: the rank is not 2, there are no elements, the dtype is another one,
            such as bool, an integer is beyond int64, or an element or the sum of a row is NaN,
            infinite or negative; the message names its index and value.
    """
    amounts = _as_matrix(value, name, "is not a real number type")
    amounts = _converted(amounts, torch.float64)
    numbers = unthreaded(amounts)
    with np.errstate(over="ignore", invalid="ignore"):  # errors are reported below
        total = numbers.sum(1)[:, None]
    # If the sum of non-negative terms is finite, so is each term.
    if not (numbers.min() >= 0 and (total < np.inf).all()):
        require_all((numbers > -np.inf) & (numbers < np.inf), amounts, name, "is not finite")
        require_all(numbers >= 0, amounts, name, "is negative")
        sums = torch.as_tensor(total)
        require_all(total < np.inf, sums, f"sum of {name}", "is not finite")
    return amounts


def as_indices(value: Any, name: str) -> Tensor:
    """Integers as int64 [rows, columns], on the device of the input.

    Raises:
        InvalidArgumentError: the rank is not 2, there are no elements, the dtype is not an
            integer type, or an integer is beyond int64.
    """
    indices = _as_matrix(value, name, "is not an integer type")
    integers = indices.dtype in _INTEGERS
    require(integers, name, f"dtype {_shown(indices.dtype)} is not an integer type")
    return _converted(indices, torch.int64)


def check_phy2log(
    value: Any, name: str, num_experts: int, num_replicas: int | None = None
) -> Tensor:
    """A `phy2log` [L, R] as int64, in which every layer holds every expert.

    Raises:
        InvalidArgumentError: the rank, the dtype or the number of slots is wrong, an entry
            is outside [0, E), or a layer has no slot for an expert.
    """
    phy2log_LR = as_indices(value, name)
    slots = phy2log_LR.shape[1]
    other_slots = f"has {slots} slots in each layer, but num_replicas is {num_replicas}"
    require(num_replicas is None or slots == num_replicas, name, other_slots)
    experts = unthreaded(phy2log_LR)
    inside = (experts >= 0) & (experts < num_experts)
    require_all(inside, phy2log_LR, name, f"is not an expert in [0, {num_experts})")
    missing = _first_false(unthreaded(replica_counts(phy2log_LR, num_experts)) > 0)
    if missing is not None:
        layer, expert = missing
        raise invalid(name, f"expert {expert} has no slot in layer {layer}")
    return phy2log_LR


def check_placement(
    value: Any, name: str, load_LE: Tensor, num_replicas: int | None = None
) -> Tensor:
    """A `phy2log` [L, R] that fits a load, as int64 on the load's device.

    Raises:
        InvalidArgumentError: see `check_phy2log`, or the numbers of layers differ.
    """
    layers, experts = load_LE.shape
    phy2log_LR = check_phy2log(value, name, experts, num_replicas)
    found = len(phy2log_LR)
    require(found == layers, name, f"has {found} layers, but load has {layers}")
    return phy2log_LR.to(load_LE.device)


def require_shape(tensor: Tensor, name: str, like: Tensor, like_name: str) -> None:
    """Raise InvalidArgumentError unless `tensor` has the shape of `like`."""
    found, expected = tuple(tensor.shape), tuple(like.shape)
    require(found == expected, name, f"shape {found} differs from {like_name}'s {expected}")


def require_all(holds: Tensor | npt.NDArray[Any], values: Tensor, name: str, rule: str) -> None:
    """Raise InvalidArgumentError for the first element of `values` for which it does not hold."""
    where = _first_false(holds)
    if where is not None:
        row, column = where
        require(False, f"{name}[{row}, {column}]", f"{values[row, column].item()} {rule}")


def replica_counts(phy2log_LR: Tensor, num_experts: int) -> Tensor:
    """`logcnt` [L, E] int64: how many slots each expert has."""
    layers, experts_LR = len(phy2log_LR), unthreaded(phy2log_LR)
    if isinstance(experts_LR, Tensor):
        counts_LE = experts_LR.new_zeros(layers, num_experts)
        return counts_LE.scatter_add_(1, experts_LR, torch.ones_like(experts_LR))
    cell_LR = experts_LR + np.arange(layers)[:, None] * num_experts
    counts = np.bincount(cell_LR.ravel(), minlength=layers * num_experts)
    return torch.from_numpy(counts.reshape(layers, num_experts))


def _as_matrix(value: Any, name: str, complaint: str) -> Tensor:
    """A dense matrix of integers or floating-point numbers; of others the complaint is raised."""
    matrix = value if isinstance(value, Tensor) else _copied(value, name, complaint)
    shape, dtype = tuple(matrix.shape), matrix.dtype
    require(matrix.layout == torch.strided, name, f"layout {matrix.layout} is not dense")
    require(matrix.ndim == 2, name, f"shape {shape} has rank {matrix.ndim}, not 2")
    require(matrix.numel() > 0, name, f"shape {shape} has no elements")
    is_real = dtype.is_floating_point or dtype in _INTEGERS
    require(is_real, name, f"dtype {_shown(dtype)} {complaint}")
    if dtype == torch.uint64:
        highest = int(matrix.cpu().numpy().max())
        require(highest <= _INT64_MAX, name, f"{highest} is beyond int64")
    return matrix.detach().resolve_neg()


def _copied(value: Any, name: str, complaint: str) -> Tensor:
    """A tensor of a list or an array, made by NumPy, which reads Python's floats as float64."""
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise invalid(name, f"is not an array of numbers: {error}") from error
    require(array.dtype.kind in "iuf", name, f"dtype {array.dtype} {complaint}")
    # Torch has no wider floats.
    wide = array.dtype.kind == "f" and array.itemsize > np.dtype(np.float64).itemsize
    kind = np.dtype(np.float64) if wide else array.dtype.newbyteorder("=")
    return torch.from_numpy(np.array(array, kind, order="C"))


def _shown(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _converted(matrix: Tensor, dtype: torch.dtype) -> Tensor:
    """The same numbers as another type; torch converts, since it knows more types than NumPy."""
    if matrix.dtype == dtype or matrix.device.type != "cpu":
        return matrix.to(dtype)
    converted = torch.empty(matrix.shape, dtype=dtype)
    columns = min(matrix.shape[1], _SERIAL)
    rows = _SERIAL // columns
    for to, whole in zip(converted.split(rows), matrix.split(rows), strict=True):
        for part, source in zip(to.split(columns, 1), whole.split(columns, 1), strict=True):
            part.copy_(source)
    return converted


def _first_false(holds: Tensor | npt.NDArray[Any]) -> tuple[int, int] | None:
    """Row and column of the first element that is False; None if all are True."""
    if bool(holds.all()):
        return None
    on_host = holds.cpu().numpy() if isinstance(holds, Tensor) else holds
    row, column = np.argwhere(~on_host)[0].tolist()
    return row, column
