"""Random placements to switch to: all slots new, or only a few."""

from __future__ import annotations

import numpy as np

from trimtab_client.placement import Placement
from trimtab_tools.simulate.options import FleetOptions

_MAX_SWAPS = 4


class RandomTargets:
    """A sequence of random placements of a fleet's sizes, the same for the same seed."""

    def __init__(self, options: FleetOptions) -> None:
        self._options = options
        self._rng = np.random.default_rng((options.seed, 3))

    def after(self, placement: Placement) -> Placement:
        """The next one, which differs from `placement` if any placement does."""
        changed = self._swapped(placement) if self._rng.random() < 0.5 else self._new()
        return self._swapped(placement) if changed == placement else changed

    def _new(self) -> Placement:
        """Each expert has at least one slot; the other slots are random."""
        options = self._options
        shape = options.layers, options.slots - options.experts
        spare_LX = self._rng.integers(0, options.experts, shape)
        all_LE = np.tile(np.arange(options.experts), (options.layers, 1))
        rows_LR = self._rng.permuted(np.concatenate([all_LE, spare_LX], axis=1), axis=1)
        return Placement.of(rows_LR, options.experts, options.ranks)

    def _swapped(self, placement: Placement) -> Placement:
        """A few pairs of slots exchange their experts."""
        rows_LR = placement.phy2log.copy()
        for _ in range(self._rng.integers(1, _MAX_SWAPS + 1)):
            layer = self._rng.integers(len(rows_LR))
            pair = self._rng.choice(rows_LR.shape[1], 2, replace=False)
            rows_LR[layer, pair] = rows_LR[layer, pair[::-1]]
        return Placement.of(rows_LR, placement.num_experts, placement.num_gpus)
