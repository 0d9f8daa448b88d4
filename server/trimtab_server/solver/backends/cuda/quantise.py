"""Converts weights to the same integers as the reference's `quantise`."""
# mypy: ignore-errors

import triton
import triton.language as tl

from trimtab_server.solver.backends.reference import quantise as reference

_TOTAL_BITS = tl.constexpr(reference.TOTAL_BITS)
_LOWEST_POWER = tl.constexpr(-64)
_MANTISSA = tl.constexpr((1 << 52) - 1)
_LEADING = tl.constexpr(1 << 52)
_NORMAL = tl.constexpr(2.0**54)
_ULP = tl.constexpr(2.0**-53)


@triton.jit
def split(value):
    """`frexp` on bits: value = mantissa * 2**(exponent - 53), with the mantissa below 2**53.

    Both are int64. The value is float64, finite and >= 0, subnormals included. Zero
    has mantissa 0 and a meaningless exponent.
    """
    small = (value.to(tl.int64, bitcast=True) >> 52) == 0
    bits = (value * tl.where(small, _NORMAL, 1.0)).to(tl.int64, bitcast=True)
    exponent = (bits >> 52) - 1022 - tl.where(small, 54, 0)
    mantissa = tl.where(value == 0, 0, (bits & _MANTISSA) | _LEADING)
    return mantissa, exponent


@triton.jit
def quantise(value, largest, items):
    """The integers of a row of weights, int32; see the reference's `quantise`.

    Args:
        value: float64, finite, >= 0.
        largest: the largest value of the row.
        items: how many values the row has.
    """
    top_mantissa, top_exponent = split(largest)
    # The product is rounded as the reference rounds it: it may reach a power of two.
    product = top_mantissa.to(tl.float64) * _ULP * items.to(tl.float64)
    _, bound = split(product)
    mantissa, exponent = split(value)
    power = exponent - (bound + top_exponent) + _TOTAL_BITS
    power = tl.minimum(tl.maximum(power, _LOWEST_POWER), _TOTAL_BITS)
    return (mantissa >> tl.minimum(53 - power, 63)).to(tl.int32)
