"""Of each row's starts the best, and the answer read off it."""
# mypy: ignore-errors
# ruff: noqa: D417

import triton
import triton.language as tl

_MOST = tl.constexpr((1 << 63) - 1)


@triton.jit
def _best_start(peak_ptr, square_ptr, restarts, T2: tl.constexpr):
    """Lowest maximum, then lowest sum of squares, then lowest index."""
    restart = tl.arange(0, T2)
    inside = restart < restarts
    peak = tl.load(peak_ptr + restart, mask=inside, other=0)
    square = tl.load(square_ptr + restart, mask=inside, other=0)
    lowest = inside & (peak == tl.min(tl.where(inside, peak, (1 << 31) - 1), axis=0))
    least = tl.min(tl.where(lowest, square, _MOST), axis=0)
    return tl.min(tl.where(lowest & (square == least), restart, T2), axis=0)


@triton.jit(do_not_specialize=["restarts", "items", "S"])
def choose_packs(
    peak_ptr,
    square_ptr,
    member_ptr,
    pack_ptr,
    rank_ptr,
    restarts,
    items,
    S,
    P2: tl.constexpr,
    N2: tl.constexpr,
    T2: tl.constexpr,
):
    """One program a row: pack and rank of each item.

    Args:
        peak_ptr: int32 [Y], heaviest pack of each start.
        square_ptr: int64 [Y], its sum of squares.
        member_ptr: int32 [Y, S, P2].
        pack_ptr: int64 [X, n], out.
        rank_ptr: int64 [X, n], out.
        restarts: T.
        items: n.
        S: slots of a pack.
    """
    row = tl.program_id(0).to(tl.int64)
    best = row * restarts
    best += _best_start(peak_ptr + best, square_ptr + best, restarts, T2)
    place = tl.arange(0, N2)
    inside = place < items
    pack, slot = place // S, place % S
    item = tl.load(member_ptr + best * S * P2 + slot * P2 + pack, mask=inside, other=0)
    tl.store(pack_ptr + row * items + item, pack.to(tl.int64), mask=inside)
    tl.store(rank_ptr + row * items + item, slot.to(tl.int64), mask=inside)


@triton.jit(do_not_specialize=["restarts", "items", "S"])
def choose_members(
    peak_ptr,
    square_ptr,
    member_ptr,
    group_ptr,
    restarts,
    items,
    S,
    P2: tl.constexpr,
    N2: tl.constexpr,
    T2: tl.constexpr,
):
    """One program a row: the items of the first pack, then of the second, int32 [X, n]."""
    row = tl.program_id(0).to(tl.int64)
    best = row * restarts
    best += _best_start(peak_ptr + best, square_ptr + best, restarts, T2)
    place = tl.arange(0, N2)
    inside = place < items
    at = best * S * P2 + (place % S) * P2 + place // S
    item = tl.load(member_ptr + at, mask=inside, other=0)
    tl.store(group_ptr + row * items + place, item, mask=inside)


@triton.jit(do_not_specialize=["restarts", "items", "S", "experts", "group_size"])
def choose_experts(
    peak_ptr,
    square_ptr,
    member_ptr,
    expert_ptr,
    group_ptr,
    phy2log_ptr,
    restarts,
    items,
    S,
    experts,
    group_size,
    P2: tl.constexpr,
    N2: tl.constexpr,
    T2: tl.constexpr,
    HIERARCHICAL: tl.constexpr,
):
    """One program a row: the expert of each slot.

    Args:
        peak_ptr: int32 [Y], heaviest pack of each start.
        square_ptr: int64 [Y], its sum of squares.
        member_ptr: int32 [Y, S, P2].
        expert_ptr: int32 [X, R], each replica's expert, numbered within the row.
        group_ptr: int32 [L, groups], see `replicate`.
        phy2log_ptr: int64 [X, R], out, numbered within the layer.
        restarts: T.
        items: R of a row.
        S: slots of a pack.
        experts: E of a row.
        group_size: experts of a group.
    """
    row = tl.program_id(0).to(tl.int64)
    best = row * restarts
    best += _best_start(peak_ptr + best, square_ptr + best, restarts, T2)
    place = tl.arange(0, N2)
    inside = place < items
    at = best * S * P2 + (place % S) * P2 + place // S
    item = tl.load(member_ptr + at, mask=inside, other=0)
    expert = tl.load(expert_ptr + row * items + item, mask=inside, other=0)
    if HIERARCHICAL:
        at = row * (experts // group_size) + expert // group_size
        group = tl.load(group_ptr + at, mask=inside, other=0)
        expert = group * group_size + expert % group_size
    tl.store(phy2log_ptr + row * items + place, expert.to(tl.int64), mask=inside)
