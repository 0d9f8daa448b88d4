"""Decodes the tensors of requests."""

from __future__ import annotations

from trimtab.v1 import tensor_pb2
from trimtab_protocol.wire import tensors
from trimtab_server.rpc.fields import malformed_as_invalid


def decode_tensor(message: tensor_pb2.Tensor, field: str) -> tensors.Array:
    """The matrix in a message: read-only, and backed by the message's bytes.

    Raises:
        InvalidArgumentError: the data type is unknown, the shape is not [rows, columns] with sizes
            of at least 1, or the length of the data does not match the shape.
    """
    with malformed_as_invalid():
        return tensors.decode_tensor(message, field, rank=2)
