"""The load of GPUs as they have had it, from what the workers' own slots have processed. Pure."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from trimtab_server.loads.estimates import Loads


def measured_loads(
    owned: Iterable[tuple[tuple[int, ...], Loads]], phy2log_LR: np.ndarray, num_gpus: int
) -> Loads | None:
    """Tokens a step of each GPU, float64 [L, G].

    A worker with one GPU has counted just that. Where it has several, an expert's tokens are
    divided evenly over those of the worker's slots that hold it: the counts do not say more.

    Args:
        owned: of each worker, its GPUs, ascending, and its tokens a step, float64 [L, E].
        phy2log_LR: the placement in force, [L, R].
        num_gpus: G.

    Returns:
        None unless there are counts for each GPU.
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
    """What each of a worker's GPUs has had, [L, its GPUs]."""
    layers = len(phy2log_LGS)
    own_LX = phy2log_LGS.reshape(layers, -1)
    copies_LE = np.zeros_like(rate_LE)
    np.add.at(copies_LE, (np.arange(layers)[:, None], own_LX), 1.0)
    share_LX = np.take_along_axis(rate_LE / np.maximum(copies_LE, 1.0), own_LX, axis=1)
    return np.asarray(share_LX.reshape(phy2log_LGS.shape).sum(2))
