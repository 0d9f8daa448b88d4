"""Placements to switch to, at random: all of it new, or a few slots."""

from __future__ import annotations

import numpy as np

from trimtab_client.placement import Placement
from trimtab_tools.simulate.options import FleetOptions

_MOST_SWAPS = 4


class RandomTargets:
    """By the fleet's seed, the same in each run.

    Args:
        options: the fleet's.
    """

    def __init__(self, options: FleetOptions) -> None:
        self._options = options
        self._rng = np.random.default_rng((options.seed, 3))

    def after(self, placement: Placement) -> Placement:
        """A placement other than this one, where there is any."""
        changed = self._few(placement) if self._rng.random() < 0.5 else self._whole()
        return self._few(placement) if changed == placement else changed

    def _whole(self) -> Placement:
        """Every expert somewhere, and otherwise at random."""
        options = self._options
        shape = options.layers, options.slots - options.experts
        spare_LX = self._rng.integers(0, options.experts, shape)
        all_LE = np.tile(np.arange(options.experts), (options.layers, 1))
        rows_LR = self._rng.permuted(np.concatenate([all_LE, spare_LX], axis=1), axis=1)
        return Placement.of(rows_LR, options.experts, options.ranks)

    def _few(self, placement: Placement) -> Placement:
        """A few pairs of slots trade places."""
        rows_LR = placement.phy2log.copy()
        for _ in range(self._rng.integers(1, _MOST_SWAPS + 1)):
            layer = self._rng.integers(len(rows_LR))
            pair = self._rng.choice(rows_LR.shape[1], 2, replace=False)
            rows_LR[layer, pair] = rows_LR[layer, pair[::-1]]
        return Placement.of(rows_LR, placement.num_experts, placement.num_gpus)
