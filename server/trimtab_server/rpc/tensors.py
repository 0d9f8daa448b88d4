"""Wire tensors to numpy arrays and back. The bytes are not copied on the way in."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.v1 import tensor_pb2
from trimtab_server.domain.errors import require

Array = npt.NDArray[Any]

_DTYPES: Mapping[tensor_pb2.DataType, np.dtype[Any]] = {
    tensor_pb2.DATA_TYPE_FLOAT32: np.dtype("<f4"),
    tensor_pb2.DATA_TYPE_FLOAT64: np.dtype("<f8"),
    tensor_pb2.DATA_TYPE_INT32: np.dtype("<i4"),
    tensor_pb2.DATA_TYPE_INT64: np.dtype("<i8"),
}
_DATA_TYPES = {dtype: data_type for data_type, dtype in _DTYPES.items()}


def decode_tensor(message: tensor_pb2.Tensor, field: str) -> Array:
    """The array in `message`: read-only, and backed by the message's bytes.

    Raises:
        InvalidArgumentError: unknown data type, a shape that is not [rows, columns]
            with sizes of at least 1, or data of another length than the shape's.
    """
    known = message.data_type in _DTYPES
    require(known, f"{field}.data_type", f"{message.data_type} is not a known type")
    dtype = _DTYPES[message.data_type]
    shape = tuple(message.shape)
    require(len(shape) == 2, f"{field}.shape", f"{list(shape)} has rank {len(shape)}, not 2")
    require(min(shape) >= 1, f"{field}.shape", f"{list(shape)} has a size below 1")
    # Python's integers do not overflow, so no shape can wrap around to fit.
    expected = math.prod(shape) * dtype.itemsize
    require(
        len(message.data) == expected,
        f"{field}.data",
        f"{len(message.data)} bytes, where shape {list(shape)} of {dtype} takes {expected}",
    )
    return np.frombuffer(message.data, dtype).reshape(shape)


def encode_tensor(value: Any, dtype: npt.DTypeLike) -> tensor_pb2.Tensor:
    """The array or CPU tensor `value`, as elements of `dtype`."""
    array = np.asarray(value).astype(np.dtype(dtype).newbyteorder("<"), copy=False)
    data_type = _DATA_TYPES[array.dtype]
    return tensor_pb2.Tensor(data_type=data_type, shape=array.shape, data=array.tobytes())
