"""Converts weights to integers, like the reference's `quantise`."""

from __future__ import annotations

import math

import numpy as np

from trimtab_server.solver.backends.cpu.arrays import Floats, Int32s
from trimtab_server.solver.backends.cpu.compiled import compiled
from trimtab_server.solver.backends.reference.quantise import TOTAL_BITS

_STEP = 1000
"""A larger power of two is applied in two steps, each of which is a normal float64."""


@compiled
def quantise(weight_I: Floats, num_items: int, out_I: Int32s) -> None:
    """Scale weights so that `num_items` of the largest sum to less than 2**30.

    Args:
        weight_I: float64 [n], finite, >= 0.
        num_items: how many items share the bound; may differ from n.
        out_I: int32 [n], written.
    """
    largest = 0.0
    for i in range(len(weight_I)):
        largest = max(largest, weight_I[i])
    mantissa, exponent = math.frexp(largest)
    power = TOTAL_BITS - exponent - math.frexp(mantissa * num_items)[1]
    # Scaling by a power of two is exact, except for values that round down to 0 anyway.
    first = min(power, _STEP)
    scale, rest = math.ldexp(1.0, first), math.ldexp(1.0, power - first)
    for i in range(len(weight_I)):
        out_I[i] = np.int32(weight_I[i] * scale * rest)
