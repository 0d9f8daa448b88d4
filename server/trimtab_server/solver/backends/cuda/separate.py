"""Separates items of one group that the deal left in one pack: the reference's `separate`."""
# mypy: ignore-errors
# ruff: noqa: D417

import triton
import triton.language as tl

from trimtab_server.solver.backends.cuda.exchange import exchange

_NO_PLACE = tl.constexpr((1 << 31) - 1)
_NO_GAIN = tl.constexpr(-(1 << 63))


@triton.jit
def separate(packing, load, P, S, P2: tl.constexpr):
    """Swap items of one start until no group is doubled in a pack without need.

    Args:
        packing: see the package.
        load: int32 [P2], of each pack.
    """
    _, weight_ptr, code_ptr, held_ptr = packing
    pack = tl.arange(0, P2)
    after = -1  # No doubled slot up to here has a partner.
    u = _next_doubled(code_ptr, held_ptr, after, P, S, P2)
    while u < _NO_PLACE:
        v = _partner(weight_ptr, code_ptr, held_ptr, load, u, P, S, P2)
        after = u
        if v < _NO_PLACE:
            pack_u, slot_u, pack_v, slot_v = u // S, u % S, v // S, v % S
            delta = tl.load(weight_ptr + slot_u * P2 + pack_u)
            delta -= tl.load(weight_ptr + slot_v * P2 + pack_v)
            load -= tl.where(pack == pack_u, delta, 0)
            load += tl.where(pack == pack_v, delta, 0)
            exchange(packing, pack_u, slot_u, pack_v, slot_v, P2, True)
            after = -1
        u = _next_doubled(code_ptr, held_ptr, after, P, S, P2)


@triton.jit
def _next_doubled(code_ptr, held_ptr, after, P, S, P2: tl.constexpr):
    """The first place pack * S + slot above `after` whose pack holds its group twice."""
    pack = tl.arange(0, P2)
    first = tl.full([P2], _NO_PLACE, tl.int32)
    for slot in range(S):
        code = tl.load(code_ptr + slot * P2 + pack, mask=pack < P, other=-1)
        held = tl.load(held_ptr + code * P2 + pack, mask=code >= 0, other=0)
        place = pack * S + slot
        first = tl.minimum(first, tl.where((held > 1) & (place > after), place, _NO_PLACE))
    return tl.min(first, axis=0)


@triton.jit
def _partner(weight_ptr, code_ptr, held_ptr, load, u, P, S, P2: tl.constexpr):
    """The place to swap u with: the highest gain, then the first; _NO_PLACE if there is none."""
    pack = tl.arange(0, P2)
    inside = pack < P
    pack_u, slot_u = u // S, u % S
    code_u = tl.load(code_ptr + slot_u * P2 + pack_u)
    weight_u = tl.load(weight_ptr + slot_u * P2 + pack_u)
    gap = tl.sum(tl.where(pack == pack_u, load, 0), axis=0) - load
    u_meets = tl.load(held_ptr + code_u * P2 + pack, mask=inside, other=0) > 0
    best = tl.full([P2], _NO_GAIN, tl.int64)
    best_slot = tl.zeros([P2], tl.int32)
    for slot in range(S):
        code = tl.load(code_ptr + slot * P2 + pack, mask=inside, other=-1)
        delta = weight_u - tl.load(weight_ptr + slot * P2 + pack, mask=inside, other=0)
        doubled = tl.load(held_ptr + code * P2 + pack, mask=code >= 0, other=0) > 1
        v_meets = tl.load(held_ptr + code * P2 + pack_u, mask=code >= 0, other=0) > 0
        fewer = 1 + doubled.to(tl.int32) - u_meets.to(tl.int32) - v_meets.to(tl.int32)
        gain = delta.to(tl.int64) * (gap - delta).to(tl.int64)
        better = inside & (fewer > 0) & (code != code_u) & (pack != pack_u) & (gain > best)
        best = tl.where(better, gain, best)
        best_slot = tl.where(better, slot, best_slot)
    top = tl.max(best, axis=0)
    found = (best == top) & (top > _NO_GAIN)
    return tl.min(tl.where(found, pack * S + best_slot, _NO_PLACE), axis=0)
