"""Traces: real loads to replay, from a file.

Legend for all shapes: T windows, L layers, E logical experts.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from trimtab_client.exceptions import InvalidArgumentError, invalid
from trimtab_tools import formats
from trimtab_tools.formats.entries import require_amounts

Counts = npt.NDArray[np.int64]

MAX_TOKENS = 1 << 20
"""Tokens of a window over all layers. Each rank has about 100 bytes for each of them, and routes
them one by one; real windows of 16 steps have a tenth of it."""


class Trace(NamedTuple):
    """Loads to replay.

    Attributes:
        load_TLE: tokens routed to each expert, int64 [T, L, E], read-only.
        divisor: by what the counts of the file were divided, so that no window has more than
            `MAX_TOKENS`, and then rounded; 1 if they are as they were.
    """

    load_TLE: Counts
    divisor: int


def read_trace(
    path: Path, format_name: str | None, windows: tuple[int, int] | None, layers: int
) -> Trace:
    """Read the loads of a file; a file with one load is a trace of one window.

    Args:
        path: of the file.
        format_name: see `formats.read_load`.
        windows: the first one to take, and the one after the last; None for all.
        layers: number of layers to take, evenly spaced; 0 for all.

    Raises:
        InvalidArgumentError: the file cannot be read, or does not hold counts, or it does not
            have these windows, or so many layers.
    """
    load_TLE = _read(path, format_name)
    all_windows, all_layers, _ = load_TLE.shape
    first, end = windows or (0, all_windows)
    if not 0 <= first < end <= all_windows:
        raise invalid("windows", f"{first}:{end} is not within 0:{all_windows}")
    if not 0 <= layers <= all_layers:
        raise invalid("layers", f"{layers} is more than the trace has ({all_layers})")
    layers = layers or all_layers
    return _scaled_down(load_TLE[first:end, np.arange(layers) * all_layers // layers])


def _read(path: Path, format_name: str | None) -> Counts:
    try:
        load = formats.read_load(path, format_name)
        require_amounts(load, path)
    except (OSError, InvalidArgumentError) as error:
        raise invalid("trace", str(error)) from error
    shape = f"{load.dtype} {list(load.shape)}"
    if load.dtype.kind not in "iu":
        raise invalid("trace", f"{path}: load, {shape}, is not made of integers")
    if load.max() > np.iinfo(np.int64).max:
        raise invalid("trace", f"{path}: load has a count beyond int64, {load.max()}")
    return load.reshape(-1, *load.shape[-2:]).astype(np.int64, copy=False)


def _scaled_down(load_TLE: Counts) -> Trace:
    # In floating point, since integers might overflow.
    most = float(load_TLE.sum(axis=(1, 2), dtype=np.float64).max())
    divisor = max(1, math.ceil(most / MAX_TOKENS))
    if divisor > 1:
        whole_TLE, rest_TLE = np.divmod(load_TLE, divisor)
        load_TLE = whole_TLE + (rest_TLE >= divisor - rest_TLE)
    load_TLE.setflags(write=False)
    return Trace(load_TLE, divisor)
