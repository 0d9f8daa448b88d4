"""Tensor messages to numpy and back. Pure."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.v1 import tensor_pb2
from trimtab_client.arrays import Matrix
from trimtab_client.exceptions import ProtocolError

_WIRE_TYPES: dict[Any, np.dtype[Any]] = {
    tensor_pb2.DATA_TYPE_FLOAT32: np.dtype("<f4"),
    tensor_pb2.DATA_TYPE_FLOAT64: np.dtype("<f8"),
    tensor_pb2.DATA_TYPE_INT32: np.dtype("<i4"),
    tensor_pb2.DATA_TYPE_INT64: np.dtype("<i8"),
}
_DATA_TYPES = {dtype: data_type for data_type, dtype in _WIRE_TYPES.items()}


def tensor_message(array: Matrix) -> tensor_pb2.Tensor:
    """An array of one of the wire's types as a message."""
    # `tobytes` writes C order whatever the strides: the only copy made here.
    data_type = _DATA_TYPES[array.dtype.newbyteorder("<")]
    return tensor_pb2.Tensor(data_type=data_type, shape=array.shape, data=array.tobytes())


def array_of(tensor: tensor_pb2.Tensor) -> npt.NDArray[Any]:
    """A read-only view of the tensor's bytes.

    Raises:
        ProtocolError: its type is unknown, or its bytes are not of its shape.
    """
    dtype, shape, data = _WIRE_TYPES.get(tensor.data_type), list(tensor.shape), tensor.data
    if dtype is None:
        raise ProtocolError(f"the server answered a tensor of unknown type {tensor.data_type}")
    if min(shape, default=0) < 0:
        raise ProtocolError(f"the server answered a tensor of shape {shape}: a size is negative")
    if len(data) != math.prod(shape) * dtype.itemsize:
        raise ProtocolError(
            f"the server answered {len(data)} bytes for a {dtype} tensor of shape {shape}"
        )
    try:
        array = np.frombuffer(data, dtype).reshape(shape)
    except ValueError as error:
        # More dimensions than numpy has, or sizes beyond it beside a 0.
        raise ProtocolError(f"the server answered a tensor of shape {shape}: {error}") from error
    return array if dtype.isnative else array.astype(dtype.newbyteorder("="))
