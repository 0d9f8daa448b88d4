"""Traces: real loads to replay, from an .npz file.

Legend for all shapes: T windows, L layers, E logical experts.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trimtab_client.exceptions import invalid

Counts = npt.NDArray[np.int64]


def read_trace(path: Path, windows: tuple[int, int] | None, layers: int) -> Counts:
    """Read tokens routed to each expert, int64 [T, L, E], read-only: `load` of an .npz file.

    Args:
        path: of the file.
        windows: the first one to take, and the one after the last; None for all.
        layers: number of layers to take, evenly spaced; 0 for all.

    Raises:
        InvalidArgumentError: the file cannot be read, has no such array, the array does not hold
            counts, int64 [T, L, E], or it does not have these windows, or so many layers.
    """
    load_TLE = _read(path)
    all_windows, all_layers, _ = load_TLE.shape
    first, end = windows or (0, all_windows)
    if not 0 <= first < end <= all_windows:
        raise invalid("windows", f"{first}:{end} is not within 0:{all_windows}")
    if not 0 <= layers <= all_layers:
        raise invalid("layers", f"{layers} is more than the trace has ({all_layers})")
    layers = layers or all_layers
    selected_TLE = load_TLE[first:end, np.arange(layers) * all_layers // layers]
    selected_TLE.setflags(write=False)
    return selected_TLE


def _read(path: Path) -> Counts:
    try:
        with np.load(path) as file:
            load: Counts = file["load"]
    except KeyError as error:
        raise invalid("trace", f"{path} holds no 'load'") from error
    except (OSError, ValueError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise invalid("trace", f"{path} is not an .npz file that can be read: {error}") from error
    if load.dtype != np.int64 or load.ndim != 3 or not load.size:
        shape = f"{load.dtype} {list(load.shape)}"
        raise invalid("trace", f"{path}: load, {shape}, is not int64 [windows, layers, experts]")
    if load.min() < 0:
        raise invalid("trace", f"{path}: load has a negative count, {load.min()}")
    return load
