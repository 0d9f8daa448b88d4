from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from trimtab.v1 import tensor_pb2
from trimtab_server.domain.errors import InvalidArgumentError
from trimtab_server.rpc.tensors import decode_tensor, encode_tensor

FLOAT32 = tensor_pb2.DATA_TYPE_FLOAT32


@given(
    hnp.arrays(
        st.sampled_from(["f4", "f8", "i4", "i8"]),
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=7),
    )
)
def test_an_array_survives_the_wire(array: npt.NDArray[Any]) -> None:
    back = decode_tensor(encode_tensor(array, array.dtype), "load")
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


def test_bytes_are_little_endian_and_row_major() -> None:
    message = encode_tensor(np.array([[1, 2], [3, 4]], dtype=">i4").T, "i4")
    assert list(message.shape) == [2, 2]
    assert message.data == bytes([1, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 4, 0, 0, 0])


def test_torch_tensors_are_encoded_in_the_type_asked_for() -> None:
    message = encode_tensor(torch.tensor([[5, 6]]), "i4")
    assert message.data_type == tensor_pb2.DATA_TYPE_INT32
    assert len(message.data) == 8


def test_a_decoded_array_shares_the_bytes_of_the_message() -> None:
    message = encode_tensor(np.ones((2, 2)), "f8")
    array = decode_tensor(message, "load")
    assert not array.flags.writeable
    assert not array.flags.owndata


@pytest.mark.parametrize(
    ("data_type", "shape", "size", "field", "description"),
    [
        (0, [1, 1], 4, "load.data_type", "0 is not"),
        (99, [1, 1], 4, "load.data_type", "99 is not"),
        (FLOAT32, [], 4, "load.shape", "rank 0"),
        (FLOAT32, [1], 4, "load.shape", "rank 1"),
        (FLOAT32, [1, 1, 1], 4, "load.shape", "rank 3"),
        (FLOAT32, [0, 4], 0, "load.shape", "below 1"),
        (FLOAT32, [-1, -1], 4, "load.shape", "below 1"),
        (FLOAT32, [1, 2], 7, "load.data", "7 bytes"),
        (FLOAT32, [1, 2], 9, "load.data", "takes 8"),
        (FLOAT32, [2**62, 4], 0, "load.data", f"takes {2**66}"),
        (FLOAT32, [2**32, 2**32], 0, "load.data", f"takes {2**66}"),
    ],
)
def test_a_tensor_that_is_not_what_it_says_is_refused(
    data_type: int, shape: list[int], size: int, field: str, description: str
) -> None:
    message = tensor_pb2.Tensor(data_type=data_type, shape=shape, data=bytes(size))
    with pytest.raises(InvalidArgumentError) as refused:
        decode_tensor(message, "load")
    (violation,) = refused.value.violations
    assert violation.field == field
    assert description in violation.description
