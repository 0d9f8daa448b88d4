"""The measured load of GPUs, from the tokens that workers' own slots have processed. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from trimtab_server.loads.estimates import Loads


def measured_loads(
    owned: Iterable[tuple[tuple[int, ...], Loads]], phy2log_LR: np.ndarray, num_gpus: int
) -> Loads | None:
    """Tokens per step of each GPU, float64 [L, G].

    The counts of a worker with one GPU are the load of that GPU. If a worker has several, the
    tokens of an expert are divided evenly over the worker's slots that hold it, since the counts
    do not tell more.

    Args:
        owned: for each worker its GPUs, ascending, and its tokens per step, float64 [L, E].
        phy2log_LR: the placement in force, [L, R].
        num_gpus: G.

    Returns:
        The loads; None if a GPU has no counts.
    """
    layers, slots = phy2log_LR.shape
    gpu_load_LG = np.zeros((layers, num_gpus))
    missing = set(range(num_gpus))
    phy2log_LGS = phy2log_LR.reshape(layers, num_gpus, slots // num_gpus)
    for gpus, rate_LE in owned:
        missing -= set(gpus)
        if len(gpus) == 1:
            gpu_load_LG[:, gpus[0]] = rate_LE.sum(1)
        else:
            gpu_load_LG[:, list(gpus)] = _divided(phy2log_LGS[:, list(gpus)], rate_LE)
    return None if missing else gpu_load_LG


def _divided(phy2log_LGS: np.ndarray, rate_LE: Loads) -> Loads:
    """The load of each GPU of a worker, [L, number of its GPUs]."""
    layers = len(phy2log_LGS)
    own_LX = phy2log_LGS.reshape(layers, -1)
    copies_LE = np.zeros_like(rate_LE)
    np.add.at(copies_LE, (np.arange(layers)[:, None], own_LX), 1.0)
    share_LX = np.take_along_axis(rate_LE / np.maximum(copies_LE, 1.0), own_LX, axis=1)
    return np.asarray(share_LX.reshape(phy2log_LGS.shape).sum(2))
