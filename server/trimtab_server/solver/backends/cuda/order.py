"""Sorts the items of each start into the order in which they are dealt."""
# mypy: ignore-errors
# ruff: noqa: D417

import triton
import triton.language as tl

from trimtab_server.solver.backends.reference import noise

_AMPLITUDE = tl.constexpr(noise.AMPLITUDE)
_UNIT = tl.constexpr(noise.UNIT)

# A number that is sorted has its item in the low 20 bits, and its key in the 43 above.
_ITEM_BITS = tl.constexpr(20)
_ITEM_MASK = tl.constexpr((1 << 20) - 1)


@triton.jit
def mix(x):
    """The reference's `_mix`, on uint32, whose products wrap."""
    x = (x ^ (x >> 16)) * 0x7FEB352D
    x = (x ^ (x >> 15)) * 0x846CA68B
    return x ^ (x >> 16)


@triton.jit(do_not_specialize=["restarts", "items"])
def order(
    weight_ptr,
    code_ptr,
    seed_ptr,
    dealt_ptr,
    dealt_code_ptr,
    restarts,
    items,
    N2: tl.constexpr,
    GROUPS: tl.constexpr,
):
    """Sort the items of one start for each program, by descending key, then by item.

    Args:
        weight_ptr: int32 [X, n].
        code_ptr: int32 [X, n].
        seed_ptr: int64 [1], the hash of the seed, below 2**32.
        dealt_ptr: int64 [Y, n], written, in order: item << 32 | weight.
        dealt_code_ptr: int32 [Y, n], written: the items' codes in the same order.
        restarts: T.
        items: n.
    """
    start = tl.program_id(0).to(tl.int64)
    row, restart = start // restarts, start % restarts
    item = tl.arange(0, N2)
    inside = item < items
    weight_ptr += row * items
    weight = tl.load(weight_ptr + item, mask=inside, other=0)
    of_restart = mix((tl.load(seed_ptr) + restart).to(tl.uint32))
    noise = (mix(of_restart + item.to(tl.uint32)) % (2 * _AMPLITUDE + 1)).to(tl.int32)
    factor = tl.where(restart > 0, noise - _AMPLITUDE, 0) + _UNIT
    key = weight.to(tl.int64) * factor.to(tl.int64)
    packed = (key << _ITEM_BITS) | (item ^ _ITEM_MASK).to(tl.int64)
    # Numbers are distinct, so the sort need not be stable; padding goes last.
    packed = tl.sort(tl.where(inside, packed, -1), descending=True)
    sorted_item = (packed & _ITEM_MASK) ^ _ITEM_MASK
    sorted_weight = tl.load(weight_ptr + sorted_item, mask=inside, other=0)
    place = start * items + item
    tl.store(dealt_ptr + place, (sorted_item << 32) | sorted_weight.to(tl.int64), mask=inside)
    if GROUPS:
        sorted_code = tl.load(code_ptr + row * items + sorted_item, mask=inside, other=-1)
        tl.store(dealt_code_ptr + place, sorted_code, mask=inside)
