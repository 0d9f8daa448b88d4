from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from trimtab_client import InvalidArgumentError
from trimtab_client.arrays import as_amounts, as_indices


class Foreign:
    """An array of another library, which numpy can read."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        return self._array


WIRE = {
    "<f4": ["f2", "f4", ">f4"],
    "<f8": ["f8", "longdouble", ">f8"],
    "<i4": ["i1", "u1", "i2", "u2", "i4", ">i4"],
    "<i8": ["u4", "i8", "u8", ">i8", ">u8"],
}


@pytest.mark.parametrize(
    ("dtype", "wire"), [(dtype, wire) for wire, dtypes in WIRE.items() for dtype in dtypes]
)
def test_each_numeric_dtype_becomes_the_narrowest_wire_type_that_holds_it(
    dtype: str, wire: str
) -> None:
    array = np.array([[0, 1, 2], [3, 4, 100]], dtype)

    converted = as_amounts(array, "load")

    assert converted.dtype == np.dtype(wire)
    assert converted.tolist() == [[0, 1, 2], [3, 4, 100]]


@pytest.mark.parametrize("kind", [np, torch], ids=["numpy", "torch"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64"])
def test_wire_types_are_not_copied(kind: Any, dtype: str) -> None:
    array = kind.ones((2, 3), dtype=getattr(kind, dtype))

    assert np.shares_memory(as_amounts(array, "load"), np.asarray(array))


PAIR = torch.tensor([[1.5, 2.0]])


@pytest.mark.parametrize(
    ("tensor", "wire"),
    [
        (PAIR.bfloat16(), "<f4"),
        (PAIR.half(), "<f4"),
        (PAIR.to(torch.float8_e4m3fn), "<f4"),
        (PAIR.double(), "<f8"),
        (PAIR.clone().requires_grad_(), "<f4"),
        (torch.tensor([[1.5], [2.0]]).t(), "<f4"),
    ],
)
def test_torch_tensors_are_accepted(tensor: torch.Tensor, wire: str) -> None:
    converted = as_amounts(tensor, "load")

    assert converted.dtype == np.dtype(wire)
    assert converted.tolist() == [[1.5, 2.0]]


def test_lists_and_foreign_arrays_are_accepted() -> None:
    assert as_amounts([[1, 2], [3, 4]], "load").tolist() == [[1, 2], [3, 4]]
    assert as_amounts(Foreign(np.ones((1, 2))), "load").tolist() == [[1, 1]]


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (np.ones((2, 2), bool), "dtype bool is not a real number type"),
        (np.ones((2, 2), complex), "dtype complex128 is not a real number type"),
        (np.array([["a"]]), "dtype <U1 is not a real number type"),
        (np.array([[object()]]), "dtype object is not a real number type"),
        (torch.ones(2, 2, dtype=torch.bool), "dtype bool is not a real number type"),
        (torch.eye(2).to_sparse(), "is not an array"),
        ([[1, 2], [3]], "is not an array"),
        (np.ones(3), r"shape \(3,\) has rank 1, not 2"),
        (np.ones((1, 2, 3)), r"shape \(1, 2, 3\) has rank 3, not 2"),
        (np.ones((0, 3)), r"shape \(0, 3\) has no elements"),
        (np.array([[2**63]], np.uint64), "9223372036854775808 is beyond int64"),
    ],
)
def test_values_that_are_not_numeric_matrices_are_refused_by_name(
    value: object, complaint: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=f"load: {complaint}") as caught:
        as_amounts(value, "load")

    assert [violation.field for violation in caught.value.field_violations] == ["load"]


def test_indices_must_be_integers() -> None:
    assert as_indices(np.ones((1, 2), np.uint8), "current").dtype == np.dtype("<i4")
    with pytest.raises(InvalidArgumentError, match="current: dtype float64 is not an integer"):
        as_indices(np.ones((1, 2)), "current")
