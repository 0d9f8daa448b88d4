"""Gains of swaps, exactly; see the reference's `refine`."""
# mypy: ignore-errors
# ruff: noqa: D417, RUF005, SIM102

import triton
import triton.language as tl

_MOST = tl.constexpr((1 << 31) - 1)


@triton.jit
def pair_gains(weight_ptr, q, load_q, r, load_r, S, P2: tl.constexpr, V: tl.constexpr):
    """The gain of the best swap of each pair of packs, groups aside, int64 [C].

    With d = w_u - w_v and the gap of the loads, a swap gains d (gap - d): the more,
    the closer d is to gap / 2. So for each pair the least distance is sought, in
    int32: from floor(gap / 2) = low or ceil(gap / 2) = high, whichever is nearer.
    A pair gains the same from either side, so rows and columns are one.

    Args:
        weight_ptr: int32 [S, P2], of each slot.
        q: int32 [C], packs.
        load_q: int32 [C], their loads.
        r: int32 [C], the other pack of each pair.
        load_r: int32 [C].
        S: slots of a pack.
        V: slots of r kept in registers at once.
    """
    gap = load_q - load_r
    low = gap >> 1
    high = gap - low
    distance = tl.zeros_like(gap) + _MOST
    for chunk in range(0, S, V):
        # One vector a slot, not a matrix: so no reduction has to cross lanes.
        above = ()
        below = ()
        for i in tl.static_range(V):
            v = tl.zeros_like(r) + chunk + i
            there = v < S
            weight_v = tl.load(weight_ptr + v * P2 + r, mask=there, other=0)
            above = above + (weight_v + high,)
            # Past the last slot every distance is nearly _MOST.
            below = below + (tl.where(there, weight_v + low, _MOST),)
        for u in range(S):
            weight_u = tl.load(weight_ptr + u * P2 + q)
            for i in tl.static_range(V):
                nearer = tl.maximum(weight_u - above[i], below[i] - weight_u)
                distance = tl.minimum(distance, nearer)
    return (high + distance).to(tl.int64) * (low - distance).to(tl.int64)


@triton.jit
def find_swap(
    weight_ptr,
    code_ptr,
    held_ptr,
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
    """The first swap of packs a and b that gains `top`, and the most that any may gain.

    Args:
        weight_ptr: int32 [S, P2]; this and the next two as in `exchange`.
        a: the heavy pack.
        b: the light pack.
        gap: load of a less that of b.
        top: int64.
        S: slots of a pack.
        U: slots of a looked at together.

    Returns:
        u * S2 + v, or 2**31 - 1 if groups forbid all of them; and if so, the gain of
        the best swap that they allow, int64, <= 0 where there is none (else 0).
    """
    v = tl.arange(0, S2)[None, :]
    weight_v = tl.load(weight_ptr + v * P2 + b, mask=v < S, other=0)
    code_v, meets_v = weight_v, weight_v
    if GROUPS:
        code_v = tl.load(code_ptr + v * P2 + b, mask=v < S, other=-1)
        meets_v = tl.load(held_ptr + code_v * P2 + a, mask=code_v >= 0, other=0).to(tl.int32)
    allowed_gain = tl.full([U, S2], -1, tl.int64)
    found = tl.full([U, S2], _MOST, tl.int32)
    for chunk in range(0, S, U):
        u = chunk + tl.arange(0, U)[:, None]
        allowed = (u < S) & (v < S)
        delta = tl.load(weight_ptr + u * P2 + a, mask=u < S, other=0) - weight_v
        gain = delta.to(tl.int64) * (gap - delta).to(tl.int64)
        if GROUPS:
            # u meets its group in b unless the only one there is v, and the reverse.
            code_u = tl.load(code_ptr + u * P2 + a, mask=u < S, other=-1)
            meets_u = tl.load(held_ptr + code_u * P2 + b, mask=code_u >= 0, other=0)
            same = (code_u == code_v).to(tl.int32)
            allowed = allowed & (tl.maximum(meets_u.to(tl.int32), meets_v) <= same)
            allowed_gain = tl.maximum(allowed_gain, tl.where(allowed, gain, -1))
        found = tl.minimum(found, tl.where(allowed & (gain == top), u * S2 + v, _MOST))
    first = tl.min(found)
    most = top * 0
    if GROUPS:
        if first == _MOST:
            most = tl.max(allowed_gain)
    return first, most
