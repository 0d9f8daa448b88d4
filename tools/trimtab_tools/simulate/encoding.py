"""What is sent to a slot, as bytes: float32 rows of layer, slot and values."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from trimtab_client.placement import IntArray

FloatArray = npt.NDArray[np.float32]


def pack(layer_N: IntArray, slot_N: IntArray, value_NX: FloatArray) -> bytes:
    """N rows. Layers and slots are far below 2^24, up to which float32 has all integers."""
    rows_NX = np.empty((len(layer_N), 2 + value_NX.shape[1]), np.float32)
    rows_NX[:, 0], rows_NX[:, 1], rows_NX[:, 2:] = layer_N, slot_N, value_NX
    return rows_NX.tobytes()


def unpack(packed: bytes, width: int) -> tuple[IntArray, IntArray, FloatArray]:
    """Layers [N], slots [N] and values [N, width] again."""
    rows_NX = np.frombuffer(packed, np.float32).reshape(-1, 2 + width)
    return rows_NX[:, 0].astype(np.int32), rows_NX[:, 1].astype(np.int32), rows_NX[:, 2:]
