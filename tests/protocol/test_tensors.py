"""Tensors survive the wire. An inconsistent tensor is refused, and the error names its path."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from trimtab.v1 import tensor_pb2
from trimtab_protocol.errors import MalformedError
from trimtab_protocol.wire.tensors import decode_tensor, encode_tensor

FLOAT32 = tensor_pb2.DATA_TYPE_FLOAT32
TYPES = ["<f4", "<f8", "<i4", "<i8"]


@given(st.sampled_from(TYPES).flatmap(lambda kind: arrays.arrays(kind, arrays.array_shapes())))
def test_an_array_survives_the_wire(array: npt.NDArray[Any]) -> None:
    message = tensor_pb2.Tensor.FromString(encode_tensor(array).SerializeToString())
    same = decode_tensor(message, "load")

    assert (same.dtype, same.shape, same.tobytes()) == (array.dtype, array.shape, array.tobytes())
    assert not same.flags.writeable
    assert not same.flags.owndata, "it shares the bytes of the message"


def test_bytes_are_little_endian_and_row_major() -> None:
    message = encode_tensor(np.array([[1, 2], [3, 4]], dtype=">i4").T)

    assert list(message.shape) == [2, 2]
    assert message.data == bytes([1, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0])


def test_torch_tensors_are_encoded_in_the_type_asked_for() -> None:
    message = encode_tensor(torch.tensor([[5, 6]]), "i4")

    assert message.data_type == tensor_pb2.DATA_TYPE_INT32
    assert len(message.data) == 8


@pytest.mark.parametrize(
    ("rank", "data_type", "shape", "size", "field", "description"),
    [
        (2, 0, [1, 1], 4, "load.data_type", "0 is not"),
        (2, 99, [1, 1], 4, "load.data_type", "99 is not"),
        (2, FLOAT32, [], 4, "load.shape", "rank 0"),
        (2, FLOAT32, [1], 4, "load.shape", "rank 1"),
        (2, FLOAT32, [1, 1, 1], 4, "load.shape", "rank 3"),
        (2, FLOAT32, [0, 4], 0, "load.shape", "below 1"),
        (2, FLOAT32, [-1, -1], 4, "load.shape", "below 1"),
        (2, FLOAT32, [1, 2], 7, "load.data", "7 bytes"),
        (2, FLOAT32, [1, 2], 9, "load.data", "takes 8"),
        (2, FLOAT32, [2**62, 4], 0, "load.data", f"takes {2**66}"),
        (2, FLOAT32, [2**32, 2**32], 0, "load.data", f"takes {2**66}"),
        (None, FLOAT32, [-1, -6], 24, "load.shape", "[-1, -6] has a size below 0"),
        (None, FLOAT32, [6, -1], 0, "load.shape", "below 0"),
        (None, FLOAT32, [0, -6], 0, "load.shape", "below 0"),
        (None, FLOAT32, [2, 3], 20, "load.data", "20 bytes"),
        (None, FLOAT32, [], 0, "load.data", "0 bytes"),
        (None, FLOAT32, [1] * 100, 4, "load.shape", "[1, 1"),
        (None, FLOAT32, [0, 2**62, 2**62], 0, "load.shape", "[0, "),
    ],
)
def test_an_inconsistent_tensor_is_refused(
    rank: int | None, data_type: Any, shape: list[int], size: int, field: str, description: str
) -> None:
    message = tensor_pb2.Tensor(data_type=data_type, shape=shape, data=bytes(size))

    with pytest.raises(MalformedError) as refused:
        decode_tensor(message, "load", rank=rank)
    (violation,) = refused.value.violations
    assert violation.field == field
    assert description in violation.description


def test_another_type_than_the_field_has_is_refused() -> None:
    with pytest.raises(MalformedError, match=r"counts\.data_type: float64 is not int64"):
        decode_tensor(encode_tensor(np.ones((1, 1))), "counts", dtype="int64")
