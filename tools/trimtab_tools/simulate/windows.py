"""How balanced a fleet is while it serves: what its slots have processed, window by window.

Legend for all shapes: L layers, E logical experts, S slots of a rank, G GPUs, one a rank.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from trimtab_client.placement import FloatArray, IntArray, Placement
from trimtab_tools.simulate.messages import WindowCounts
from trimtab_tools.simulate.trace import Counts


@dataclass(frozen=True)
class Window:
    """The imbalance of a window: heaviest GPU / mean GPU, mean over layers.

    Attributes:
        number: of the window, from 0.
        untouched: as it would have been by the placement that ranks load at first, if replicas
            of an expert shared its tokens evenly.
        served: as it has been, by what the GPUs have processed.
    """

    number: int
    untouched: float
    served: float


class WindowCounter:
    """What one rank's slots process, summed up over each window.

    Args:
        steps: of a window.
        windows: how many there are; what comes after them is not counted.
    """

    def __init__(self, steps: int, windows: int) -> None:
        self._steps = steps
        self._windows = windows
        self._window = -1
        self._counted = 0
        self._counts_LE: Counts = np.zeros((0, 0), np.int64)

    def add(self, step: int, counts_LS: Counts, own_LS: IntArray, experts: int) -> WindowCounts | None:
        """Count a step; returns what its window has come to, where it was the last one of it.

        Args:
            step: which.
            counts_LS: int64, tokens that each of this rank's slots has processed.
            own_LS: the expert in each of them.
            experts: E.
        """
        window = step // self._steps
        if window >= self._windows:
            return None
        if window != self._window:
            self._window, self._counted = window, 0
            self._counts_LE = np.zeros((len(own_LS), experts), np.int64)
        np.add.at(self._counts_LE, (np.arange(len(own_LS))[:, None], own_LS), counts_LS)
        self._counted += 1
        if (step + 1) % self._steps:
            return None
        return WindowCounts(window, self._counted, self._counts_LE)


class Windows:
    """The windows of a fleet, of which each rank says what it has counted.

    Args:
        untouched: what the ranks have loaded at first.
        steps: of a window.

    Attributes:
        complete: windows of which all ranks have counted every step, ascending. Another one is
            left out: what a rank has counted goes with its process.
        ended: how many have come to their end.
    """

    def __init__(self, untouched: Placement, steps: int) -> None:
        self.complete: list[Window] = []
        self.ended = 0
        self._untouched = untouched
        self._steps = steps
        self._parts: dict[int, dict[int, WindowCounts]] = {}

    def add(self, rank: int, counted: WindowCounts) -> None:
        """A rank has come to the end of a window."""
        self.ended = max(self.ended, counted.window + 1)
        parts = self._parts.setdefault(counted.window, {})
        parts[rank] = counted
        if len(parts) < self._untouched.num_gpus:
            return
        del self._parts[counted.window]
        if all(part.steps == self._steps for part in parts.values()):
            by_rank_GLE = np.stack([parts[rank].counts_LE for rank in sorted(parts)])
            self._take(counted.window, by_rank_GLE)

    def _take(self, number: int, by_rank_GLE: Counts) -> None:
        untouched_L = self._untouched.balance(by_rank_GLE.sum(axis=0)).imbalance
        served_L = heaviest_over_mean(by_rank_GLE.sum(axis=2).T)
        # All ranks may have begun anew, and come to the same window again.
        kept = [window for window in self.complete if window.number < number]
        self.complete = [*kept, Window(number, untouched_L.mean().item(), served_L.mean().item())]


def heaviest_over_mean(gpu_load_LG: Counts) -> FloatArray:
    """The imbalance of each layer, float64 [L]; 1 without load."""
    mean_L = gpu_load_LG.mean(axis=1)
    ratio_L: FloatArray = np.ones_like(mean_L)
    np.divide(gpu_load_LG.max(axis=1), mean_L, out=ratio_L, where=mean_L > 0)
    return ratio_L


def moves_of(before_LS: IntArray, after_LS: IntArray) -> int:
    """Expert weights that a GPU has come to hold and did not before, over all layers.

    Args:
        before_LS: the expert in each of its slots.
        after_LS: the same, later.
    """
    new_LS = (after_LS[:, :, None] != before_LS[:, None, :]).all(axis=2)
    return sum(
        len(set(row_S[new_S].tolist())) for row_S, new_S in zip(after_LS, new_LS, strict=True)
    )
