"""The weights that ranks load, and by which their results are checked."""

from __future__ import annotations

import numpy as np

from trimtab_tools.conformance.adapter import FloatArray

_MAX_WEIGHT = 8


class Checkpoint:
    """Weights by layer and expert, the same in every process that has the same seed.

    Weights and tokens are small integers: every product and sum is exact in float32, in any
    order of addition. So a result that differs in its last bit comes from another expert.

    Args:
        seed: of all weights.
        hidden: H.
    """

    def __init__(self, seed: int, hidden: int) -> None:
        self._seed = seed
        self._hidden = hidden
        self._made: dict[tuple[int, int], FloatArray] = {}

    def weights(self, layer: int, expert: int) -> FloatArray:
        """The matrix of an expert, float32 [H, H], read-only."""
        key = int(layer), int(expert)
        if key not in self._made:
            rng = np.random.default_rng((self._seed, *key))
            shape = self._hidden, self._hidden
            made = rng.integers(-_MAX_WEIGHT, _MAX_WEIGHT + 1, shape).astype(np.float32)
            made.setflags(write=False)
            self._made[key] = made
        return self._made[key]

    def product(self, layer: int, expert: int, token_TH: FloatArray) -> FloatArray:
        """The tokens multiplied by an expert's matrix, float32 [T, H]."""
        product_TH: FloatArray = token_TH @ self.weights(layer, expert)
        return product_TH
