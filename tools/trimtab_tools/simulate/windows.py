"""How balanced a fleet is while it serves, by what its slots process in each window of a trace.

Legend for all shapes: L layers, E logical experts, S slots of a rank, G GPUs, one a rank.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from trimtab_client.placement import FloatArray, IntArray
from trimtab_tools.simulate.messages import WindowCounts
from trimtab_tools.simulate.trace import Counts


@dataclass(frozen=True)
class Window:
    """The imbalance of a window: heaviest GPU / mean GPU, mean over layers.

    Attributes:
        number: of the window, from 0.
        no_redundancy: see `no_redundancy_imbalance`.
        served: by what the GPUs have really processed.
        static_plan: under the static plan, if the replicas of an expert shared its tokens evenly.
            None while the fleet works, and if there is no such plan.
        shadow: the same under the placements of shadow mode. None while the fleet works, and if
            these are unknown.
    """

    number: int
    no_redundancy: float
    served: float
    static_plan: float | None = None
    shadow: float | None = None


class ServedWindow(NamedTuple):
    """A window whose every step was counted by all ranks, and its load, int64 [L, E]."""

    window: Window
    load_LE: Counts


class WindowCounter:
    """Counts the tokens that one rank's slots process, window by window.

    Args:
        steps: number of steps in a window.
        windows: number of windows; later steps are not counted.
    """

    def __init__(self, steps: int, windows: int) -> None:
        self._steps = steps
        self._windows = windows
        self._window = -1
        self._counted = 0
        self._counts_LE: Counts = np.zeros((0, 0), np.int64)

    def add(
        self, step: int, counts_LS: Counts, own_LS: IntArray, experts: int
    ) -> WindowCounts | None:
        """Count a step; returns the window's counts after its last step, else None.

        Args:
            step: number of the step.
            counts_LS: int64, tokens that each of this rank's slots has processed.
            own_LS: the expert in each of these slots.
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
    """The windows that a fleet has served, put together from the counts of its ranks.

    Args:
        num_gpus: G.
        steps: number of steps in a window.

    Attributes:
        complete: the windows of which all ranks have counted every step, ascending. The others
            are left out: the counts of a rank are lost with its process.
        ended: number of windows that have come to their end.
    """

    def __init__(self, num_gpus: int, steps: int) -> None:
        self.complete: list[ServedWindow] = []
        self.ended = 0
        self._num_gpus = num_gpus
        self._steps = steps
        self._parts: dict[int, dict[int, WindowCounts]] = {}

    def add(self, rank: int, counts: WindowCounts) -> None:
        """A rank has come to the end of a window."""
        self.ended = max(self.ended, counts.window + 1)
        parts = self._parts.setdefault(counts.window, {})
        parts[rank] = counts
        if len(parts) < self._num_gpus:
            return
        del self._parts[counts.window]
        if all(part.steps == self._steps for part in parts.values()):
            by_rank_GLE = np.stack([parts[rank].counts_LE for rank in sorted(parts)])
            self._add_complete(counts.window, by_rank_GLE)

    def _add_complete(self, number: int, by_rank_GLE: Counts) -> None:
        load_LE = by_rank_GLE.sum(axis=0)
        served = imbalance_of(by_rank_GLE.sum(axis=2).T).mean().item()
        window = Window(number, no_redundancy_imbalance(load_LE, self._num_gpus), served)
        # All ranks may have died and begun anew, and then come to the same window again.
        kept = [each for each in self.complete if each.window.number < number]
        self.complete = [*kept, ServedWindow(window, load_LE)]


def no_redundancy_imbalance(load_LE: Counts, num_gpus: int) -> float:
    """The imbalance of a load if each expert had one slot, in order: E / G experts on a GPU.

    If G does not divide E, some GPUs have one expert more than others. Mean over layers.
    """
    experts = load_LE.shape[1]
    gpu_E = np.arange(experts) * num_gpus // experts
    lies_EG = np.equal.outer(gpu_E, np.arange(num_gpus)).astype(np.int64)
    return float(imbalance_of(load_LE @ lies_EG).mean())


def imbalance_of(gpu_load_LG: Counts | FloatArray) -> FloatArray:
    """Heaviest GPU / mean GPU of each layer, float64 [L]; 1 for a layer without load."""
    mean_L = gpu_load_LG.mean(axis=1)
    ratio_L: FloatArray = np.ones_like(mean_L)
    np.divide(gpu_load_LG.max(axis=1), mean_L, out=ratio_L, where=mean_L > 0)
    return ratio_L


def count_moves(before_LS: IntArray, after_LS: IntArray) -> int:
    """The number of expert weights that are new to a GPU, over all layers.

    Args:
        before_LS: the expert in each of its slots before.
        after_LS: the expert in each of its slots after.
    """
    rows = zip(before_LS.tolist(), after_LS.tolist(), strict=True)
    return sum(len(set(after) - set(before)) for before, after in rows)
