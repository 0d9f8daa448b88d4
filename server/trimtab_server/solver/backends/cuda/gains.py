"""Exact gains of swaps; see the reference's `refine`."""
# mypy: ignore-errors
# ruff: noqa: D417, RUF005, SIM102

import triton
import triton.language as tl

_MAX = tl.constexpr((1 << 31) - 1)


@triton.jit
def pair_gains(weight_ptr, q, load_q, r, load_r, S, P2: tl.constexpr, V: tl.constexpr):
    """The gain of the best swap between each pair of packs, ignoring groups, int64 [C].

    With d = w_u - w_v and the gap of the loads, a swap gains d (gap - d): the closer d is
    to gap / 2, the more. So for each pair the smallest distance is sought, in int32: from
    floor(gap / 2) = low or ceil(gap / 2) = high, whichever is nearer. Swapping the two packs
    of a pair does not change its gain, so one function serves rows and columns.

    Args:
        weight_ptr: int32 [S, P2], of each slot.
        q: int32 [C], packs.
        load_q: int32 [C], their loads.
        r: int32 [C], the other pack of each pair.
        load_r: int32 [C].
        V: slots of r that are kept in registers at once.
    """
    gap = load_q - load_r
    low = gap >> 1
    high = gap - low
    distance = tl.zeros_like(gap) + _MAX
    for chunk in range(0, S, V):
        # One vector for each slot, not a matrix: so no reduction has to cross lanes.
        above = ()
        below = ()
        for i in tl.static_range(V):
            v = tl.zeros_like(r) + chunk + i
            there = v < S
            weight_v = tl.load(weight_ptr + v * P2 + r, mask=there, other=0)
            above = above + (weight_v + high,)
            # Beyond the last slot every distance is nearly _MAX.
            below = below + (tl.where(there, weight_v + low, _MAX),)
        for u in range(S):
            weight_u = tl.load(weight_ptr + u * P2 + q)
            for i in tl.static_range(V):
                nearer = tl.maximum(weight_u - above[i], below[i] - weight_u)
                distance = tl.minimum(distance, nearer)
    return (high + distance).to(tl.int64) * (low - distance).to(tl.int64)


@triton.jit
def find_swap(
    packing,
    a,
    b,
    gap,
    top,
    S,
    P2: tl.constexpr,
    S2: tl.constexpr,
    U: tl.constexpr,
    GROUPS: tl.constexpr,
):
    """The first swap of packs a and b that gains `top`, and the highest gain of any.

    Args:
        packing: see the package.
        a: the heavy pack.
        b: the light pack.
        gap: load of a minus load of b.
        top: int64.
        U: slots of a that are tried together.

    Returns:
        u * S2 + v, or 2**31 - 1 if groups forbid all such swaps. In that case also the gain
        of the best swap that groups allow, int64, <= 0 if there is none; else 0.
    """
    _, weight_ptr, code_ptr, held_ptr = packing
    v = tl.arange(0, S2)[None, :]
    weight_v = tl.load(weight_ptr + v * P2 + b, mask=v < S, other=0)
    code_v, meets_v = weight_v, weight_v
    if GROUPS:
        code_v = tl.load(code_ptr + v * P2 + b, mask=v < S, other=-1)
        meets_v = tl.load(held_ptr + code_v * P2 + a, mask=code_v >= 0, other=0).to(tl.int32)
    allowed_gain = tl.full([U, S2], -1, tl.int64)
    found = tl.full([U, S2], _MAX, tl.int32)
    for chunk in range(0, S, U):
        u = chunk + tl.arange(0, U)[:, None]
        allowed = (u < S) & (v < S)
        delta = tl.load(weight_ptr + u * P2 + a, mask=u < S, other=0) - weight_v
        gain = delta.to(tl.int64) * (gap - delta).to(tl.int64)
        if GROUPS:
            # u meets its group in b unless v is its only member there, and the reverse.
            code_u = tl.load(code_ptr + u * P2 + a, mask=u < S, other=-1)
            meets_u = tl.load(held_ptr + code_u * P2 + b, mask=code_u >= 0, other=0)
            same = (code_u == code_v).to(tl.int32)
            allowed = allowed & (tl.maximum(meets_u.to(tl.int32), meets_v) <= same)
            allowed_gain = tl.maximum(allowed_gain, tl.where(allowed, gain, -1))
        found = tl.minimum(found, tl.where(allowed & (gain == top), u * S2 + v, _MAX))
    first = tl.min(found)
    highest = top * 0
    if GROUPS:
        if first == _MAX:
            highest = tl.max(allowed_gain)
    return first, highest
