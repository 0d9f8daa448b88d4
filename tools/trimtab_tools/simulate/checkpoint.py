"""The weights that ranks load, and are judged by."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]

_LARGEST = 8


class Checkpoint:
    """Weights by layer and expert, the same in every process that has the same seed.

    They are small integers, and so are tokens: every product and sum is exact in float32,
    in whatever order it is taken. What differs by the last bit is another expert's.

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
            made = rng.integers(-_LARGEST, _LARGEST + 1, shape).astype(np.float32)
            made.setflags(write=False)
            self._made[key] = made
        return self._made[key]

    def product(self, layer: int, expert: int, token_TH: FloatArray) -> FloatArray:
        """What an expert makes of tokens, float32 [T, H]."""
        product_TH: FloatArray = token_TH @ self.weights(layer, expert)
        return product_TH
