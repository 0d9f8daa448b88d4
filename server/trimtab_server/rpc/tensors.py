"""Tensors of requests."""

from __future__ import annotations

from trimtab.v1 import tensor_pb2
from trimtab_protocol.wire import tensors
from trimtab_server.rpc.fields import refused


def decode_tensor(message: tensor_pb2.Tensor, field: str) -> tensors.Array:
    """The matrix in a message: read-only, and backed by the message's bytes.

    Raises:
        InvalidArgumentError: an unknown data type, a shape that is not [rows, columns] with sizes
            of at least 1, or data of another length than the shape's.
    """
    with refused():
        return tensors.decode_tensor(message, field, rank=2)
