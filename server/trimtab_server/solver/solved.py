"""What every way to a placement comes to."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Solved(NamedTuple):
    """A placement, and what it took.

    Attributes:
        phy2log_LR: int64, the expert of each slot.
        iterations: steps tried, summed over rows and restarts.
        swaps: swaps applied, likewise.
    """

    phy2log_LR: Tensor
    iterations: int
    swaps: int
