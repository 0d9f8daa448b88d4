"""Maps GPUs to their expert slots."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from trimtab_client.placement import Placement


def slots_of(gpus: Sequence[int], placement: Placement) -> npt.NDArray[np.int64]:
    """The slots of these GPUs, int64 [slots of these GPUs], in the order of the GPUs."""
    per_gpu = placement.phy2log.shape[1] // placement.num_gpus
    first_G1: npt.NDArray[np.int64] = np.asarray(gpus, np.int64)[:, None] * per_gpu
    slots_GS: npt.NDArray[np.int64] = first_G1 + np.arange(per_gpu)
    return slots_GS.ravel()
