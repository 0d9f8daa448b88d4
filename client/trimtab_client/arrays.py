"""Converts the caller's arrays to numpy matrices of the types that can be sent.

An InvalidArgumentError says that it is no matrix of such numbers, is empty, or has a uint64 beyond
int64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab_client.exceptions import invalid

Matrix = npt.NDArray[Any]
"""A two-dimensional array of little-endian float32, float64, int32 or int64."""

_INT64_MAX = np.iinfo(np.int64).max


def as_amounts(value: npt.ArrayLike, field: str) -> Matrix:
    """Loads or weights [rows, columns] of any integer or floating type.

    Arrays that have a type that can be sent are not copied. Narrow types are widened: float16
    and bfloat16 to float32, small integers to int32.
    """
    array = _as_matrix(value, field)
    if array.dtype.kind == "f":
        return array.astype("<f4" if array.itemsize <= 4 else "<f8", copy=False)
    return _as_integers(array, field, "is not a real number type")


def as_indices(value: npt.ArrayLike, field: str) -> Matrix:
    """Indices [rows, columns] of any integer type."""
    return _as_integers(_as_matrix(value, field), field, "is not an integer type")


def _as_integers(array: Matrix, field: str, complaint: str) -> Matrix:
    if array.dtype.kind not in "iu":
        raise invalid(field, f"dtype {array.dtype} {complaint}")
    if array.dtype.kind == "u" and array.itemsize == 8 and array.max() > _INT64_MAX:
        raise invalid(field, f"{array.max()} is beyond int64")
    fits_int32 = np.can_cast(array.dtype, np.int32)
    return array.astype("<i4" if fits_int32 else "<i8", copy=False)


def _as_matrix(value: npt.ArrayLike, field: str) -> Matrix:
    try:
        array = np.asarray(_from_torch(value) if hasattr(value, "detach") else value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise invalid(field, f"is not an array: {error}") from error
    if array.ndim != 2:
        raise invalid(field, f"shape {array.shape} has rank {array.ndim}, not 2")
    if array.size == 0:
        raise invalid(field, f"shape {array.shape} has no elements")
    return array


def _from_torch(tensor: Any) -> Any:
    """A torch tensor as a numpy array. Uses only the tensor's methods: torch is not imported."""
    tensor = tensor.detach().cpu()
    # numpy has no bfloat16 or float8, so torch widens them.
    if tensor.is_floating_point() and tensor.element_size() < 4:
        tensor = tensor.float()
    return tensor.numpy()
