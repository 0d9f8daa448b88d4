"""Tensor messages to numpy arrays and back. The bytes are not copied on the way in."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from trimtab.v1 import tensor_pb2
from trimtab_protocol.errors import malformed

Array = npt.NDArray[Any]

_DTYPES: Mapping[Any, np.dtype[Any]] = {
    tensor_pb2.DATA_TYPE_FLOAT32: np.dtype("<f4"),
    tensor_pb2.DATA_TYPE_FLOAT64: np.dtype("<f8"),
    tensor_pb2.DATA_TYPE_INT32: np.dtype("<i4"),
    tensor_pb2.DATA_TYPE_INT64: np.dtype("<i8"),
}
_DATA_TYPES = {dtype: data_type for data_type, dtype in _DTYPES.items()}


def encode_tensor(value: Any, dtype: npt.DTypeLike | None = None) -> tensor_pb2.Tensor:
    """An array, a list or a CPU tensor as a message, with elements of type `dtype`.

    If that is None, the array's own has to be one of the wire's types.
    """
    array = np.asarray(value)
    kind = np.dtype(array.dtype if dtype is None else dtype).newbyteorder("<")
    # `tobytes` writes C order whatever the strides.
    array = array.astype(kind, copy=False)
    return tensor_pb2.Tensor(data_type=_DATA_TYPES[kind], shape=array.shape, data=array.tobytes())


def decode_tensor(
    message: tensor_pb2.Tensor, field: str, *, rank: int | None = None, dtype: str | None = None
) -> Array:
    """The array in a message: read-only, and backed by the message's bytes.

    It has to have `rank` dimensions, each of at least 1, and a `dtype`, such as "int32"; None
    stands for any. Its data has to be as long as its shape says. `field` is its path, for errors.
    """
    # Each report is decoded here, so the texts of errors are made only when they are needed.
    kind = _DTYPES.get(message.data_type)
    if kind is None:
        raise malformed(f"{field}.data_type", f"{message.data_type} is not a known type")
    if dtype is not None and dtype != kind.name:
        raise malformed(f"{field}.data_type", f"{kind} is not {dtype}")
    shape = list(message.shape)
    if rank is not None and len(shape) != rank:
        raise malformed(f"{field}.shape", f"{shape} has rank {len(shape)}, not {rank}")
    low = 0 if rank is None else 1
    if min(shape, default=low) < low:
        raise malformed(f"{field}.shape", f"{shape} has a size below {low}")
    # Python's integers do not overflow, so no shape can wrap around to fit.
    expected, length = math.prod(shape) * kind.itemsize, len(message.data)
    if length != expected:
        sizes = f"{length} bytes, but shape {shape} of {kind} takes {expected}"
        raise malformed(f"{field}.data", sizes)
    try:
        array = np.frombuffer(message.data, kind).reshape(shape)
    except ValueError as error:
        # More dimensions than numpy has, or a size beyond it beside a 0.
        raise malformed(f"{field}.shape", f"{shape}: {error}") from error
    return array if kind.isnative else array.astype(kind.newbyteorder("="))
