"""Random layouts of experts in slots, of which each package makes its placements."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

IntArray = npt.NDArray[np.int64]


def random_slots(seed: int, layers: int, slots: int, experts: int) -> IntArray:
    """`phy2log`, int64 [L, R]. Every expert has a slot in each layer."""
    rng = np.random.default_rng(seed)
    spare = rng.integers(0, experts, (layers, slots - experts))
    every_LE = np.tile(np.arange(experts), (layers, 1))
    return rng.permuted(np.hstack([every_LE, spare]), axis=1)


@st.composite
def layouts(draw: st.DrawFn) -> tuple[IntArray, int, int]:
    """`phy2log`, the number of experts, and the number of GPUs."""
    gpus, slots_per_gpu, layers = (draw(st.integers(1, most)) for most in (5, 4, 4))
    experts = draw(st.integers(1, gpus * slots_per_gpu))
    seed = draw(st.integers(0, 2**32))
    return random_slots(seed, layers, gpus * slots_per_gpu, experts), experts, gpus
