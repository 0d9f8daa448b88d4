"""Tensors of the server: each that cannot be is a ProtocolError, and says what is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from trimtab.v1 import tensor_pb2
from trimtab_client import ProtocolError
from trimtab_client.tensors import array_of, tensor_message

TYPES = ["<f4", "<f8", "<i4", "<i8"]
INT32 = tensor_pb2.DATA_TYPE_INT32


@given(st.sampled_from(TYPES).flatmap(lambda kind: arrays.arrays(kind, arrays.array_shapes())))
def test_an_array_survives_the_wire(array: np.ndarray) -> None:
    message = tensor_message(array)
    same = array_of(tensor_pb2.Tensor.FromString(message.SerializeToString()))
    assert (same.dtype, same.shape, same.tobytes()) == (array.dtype, array.shape, array.tobytes())
    assert not same.flags.writeable


@pytest.mark.parametrize(
    ("shape", "size", "message"),
    [
        ([-1, -6], 24, r"of shape \[-1, -6\]: a size is negative"),
        ([-1], 4, r"of shape \[-1\]: a size is negative"),
        ([6, -1], 0, r"of shape \[6, -1\]: a size is negative"),
        ([0, -6], 0, r"of shape \[0, -6\]: a size is negative"),
        ([2, 3], 20, r"20 bytes for a int32 tensor of shape \[2, 3\]"),
        ([], 0, r"0 bytes for a int32 tensor of shape \[\]"),
        ([1] * 100, 4, r"of shape \[1, 1"),
        ([0, 2**62, 2**62], 0, r"of shape \[0, "),
    ],
    ids=["two", "one", "another", "beside 0", "short", "none", "too many", "beyond numpy"],
)
def test_a_shape_that_cannot_be_is_refused(shape: list[int], size: int, message: str) -> None:
    tensor = tensor_pb2.Tensor(data_type=INT32, shape=shape, data=bytes(size))
    with pytest.raises(ProtocolError, match=message):
        array_of(tensor)


def test_a_type_that_is_not_known_is_refused() -> None:
    unknown: Any = 99
    with pytest.raises(ProtocolError, match="unknown type 99"):
        array_of(tensor_pb2.Tensor(data_type=unknown, shape=[1], data=bytes(4)))
