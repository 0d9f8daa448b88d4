"""What is routed: which experts the tokens of a step go to, and the tokens themselves."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from trimtab_client.placement import IntArray
from trimtab_client.simulate.options import FleetOptions

FloatArray = npt.NDArray[np.float32]

_LARGEST = 4


class Traffic:
    """Experts of uneven popularity, other ones in each layer; the same in every process.

    Args:
        options: sizes and seed.
        rank: whose tokens.
    """

    def __init__(self, options: FleetOptions, rank: int) -> None:
        self._options = options
        self._rank = rank
        rng = np.random.default_rng((options.seed, 1))
        popular_E = 1.0 / np.arange(1, options.experts + 1)
        popular_LE = rng.permuted(np.tile(popular_E, (options.layers, 1)), axis=1)
        self._cumulative_LE = np.cumsum(popular_LE, axis=1) / popular_E.sum()

    def of_step(self, step: int) -> tuple[IntArray, FloatArray]:
        """The tokens of a step: their experts, int32 [L, T], and values, float32 [L, T, H]."""
        options = self._options
        rng = np.random.default_rng((options.seed, 2, self._rank, step))
        shape = options.layers, options.tokens
        drawn_LT = rng.random(shape)
        experts_LT = (drawn_LT[:, :, None] >= self._cumulative_LE[:, None, :-1]).sum(axis=2)
        token_LTH = rng.integers(-_LARGEST, _LARGEST + 1, (*shape, options.hidden))
        return experts_LT.astype(np.int32), token_LTH.astype(np.float32)
