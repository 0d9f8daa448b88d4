"""Converts weights to integers, so that every backend computes the same exact sums."""

from __future__ import annotations

import torch
from torch import Tensor

TOTAL_BITS = 30
"""The integers of a row sum to less than 2**30, so squares of sums fit into int64."""

_LOWEST_POWER = -64


def quantise(weight_XI: Tensor) -> Tensor:
    """Scale each row by a power of two and round down, int64 [X, n].

    The power is the largest for which n times the row's maximum stays below
    2**30. It depends on the maximum alone, not on a sum, whose rounding would
    depend on the order of addition: so devices and threads agree to the last bit.
    Equal weights stay equal, the order of weights stays the same, and small integers
    stay exact.

    Args:
        weight_XI: float64 [X, n], finite, >= 0.
    """
    mantissa_XI, exponent_XI = torch.frexp(weight_XI)
    largest_mantissa_X1, largest_exponent_X1 = torch.frexp(weight_XI.amax(1, keepdim=True))
    # n * max < 2**bound; computed on the mantissa, so that nothing overflows.
    bound_X1 = torch.frexp(largest_mantissa_X1 * weight_XI.shape[1])[1] + largest_exponent_X1
    power_XI = (exponent_XI - bound_X1 + TOTAL_BITS).clamp(_LOWEST_POWER, TOTAL_BITS)
    # A table, since pow() may not be exact on a device.
    powers = [2.0**power for power in range(_LOWEST_POWER, TOTAL_BITS + 1)]
    table = torch.tensor(powers, dtype=torch.float64, device=weight_XI.device)
    return (mantissa_XI * table[(power_XI - _LOWEST_POWER).long()]).to(torch.int64)
