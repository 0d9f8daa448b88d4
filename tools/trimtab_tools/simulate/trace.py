"""Traces: real loads to replay, from an .npz file.

Legend for all shapes: T windows, L layers, E logical experts.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from trimtab_client.exceptions import invalid

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Trace:
    """Loads to replay, one for each window.

    Attributes:
        load_TLE: int64 [T, L, E], tokens routed to each expert, at least 0.
    """

    load_TLE: Counts

    @property
    def windows(self) -> int:
        """T."""
        return len(self.load_TLE)

    @property
    def layers(self) -> int:
        """L."""
        return len(self.load_TLE[0])

    @property
    def experts(self) -> int:
        """E."""
        return len(self.load_TLE[0, 0])

    def select(self, windows: tuple[int, int] | None, layers: int) -> Trace:
        """A trace of some of the windows, and of some of the layers, evenly spaced.

        Args:
            windows: the first one, and the one after the last; None for all.
            layers: number of layers; 0 for all.

        Raises:
            InvalidArgumentError: the trace does not have these windows, or so many layers.
        """
        first, end = (0, self.windows) if windows is None else windows
        if not 0 <= first < end <= self.windows:
            raise invalid("windows", f"{first}:{end} is not within 0:{self.windows}")
        if not 0 <= layers <= self.layers:
            raise invalid("layers", f"{layers} is more than the trace has ({self.layers})")
        chosen_L = np.arange(layers or self.layers) * self.layers // (layers or self.layers)
        load_TLE = self.load_TLE[first:end, chosen_L]
        load_TLE.setflags(write=False)
        return Trace(load_TLE)


def read_trace(path: Path) -> Trace:
    """Read a trace: the array `load` of an .npz file.

    Raises:
        InvalidArgumentError: the file cannot be read, has no such array, or the array does not
            hold counts, int64 [T, L, E].
    """
    try:
        with np.load(path) as file:
            load = file["load"]
    except KeyError as error:
        raise invalid("trace", f"{path} holds no 'load'") from error
    except (OSError, ValueError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise invalid("trace", f"{path} is not an .npz file that can be read: {error}") from error
    if load.dtype != np.int64 or load.ndim != 3 or not load.size:
        shape = f"{load.dtype} {list(load.shape)}"
        raise invalid("trace", f"{path}: load, {shape}, is not int64 [windows, layers, experts]")
    if load.min() < 0:
        raise invalid("trace", f"{path}: load has a negative count, {load.min()}")
    return Trace(load)
