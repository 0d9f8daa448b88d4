"""Values for slots as bytes: float32 rows of layer, slot and the values themselves."""

from __future__ import annotations

import numpy as np

from trimtab_client.placement import IntArray
from trimtab_tools.conformance.adapter import FloatArray


def encode(layer_N: IntArray, slot_N: IntArray, value_NX: FloatArray) -> bytes:
    """N rows. Layers and slots are far below 2^24, up to which float32 holds all integers."""
    rows_NX = np.empty((len(layer_N), 2 + value_NX.shape[1]), np.float32)
    rows_NX[:, 0], rows_NX[:, 1], rows_NX[:, 2:] = layer_N, slot_N, value_NX
    return rows_NX.tobytes()


def decode(data: bytes, width: int) -> tuple[IntArray, IntArray, FloatArray]:
    """The layers [N], slots [N] and values [N, width] of `encode`."""
    rows_NX = np.frombuffer(data, np.float32).reshape(-1, 2 + width)
    return rows_NX[:, 0].astype(np.int32), rows_NX[:, 1].astype(np.int32), rows_NX[:, 2:]
